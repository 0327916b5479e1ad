/** Finds the texts in the extension's own code that people read. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";

/** Properties of what the editor shows. */
const SHOWN_PROPERTIES =
  /^(label|detail|title|description|placeHolder|placeholder|prompt|message|tooltip|what|question)$/;
/** Functions whose texts the editor shows. */
const SHOWN_BY =
  /^(show(Error|Warning|Information)(Message)?|tell|CommandFailed|Error|appendText|appendMarkdown|offer)$/;
/** Several words; a single one may be a name. */
const SENTENCE = /\p{Letter}{2,}[,:;]? \p{Letter}{2,}/u;
/** Words of programs, which are compared with or given to them. */
const OF_PROGRAMS = [
  "user file",
  "peft-daemon doctor",
  "peft-daemon why",
  "peft-daemon upstream login",
  "`upstream_model` chooses none",
  "Install the extra: ",
];
/** Ids, icons and examples, which are the same in every language. */
const NO_WORDS = /^(\$\([\w~-]+\)|[a-z][\w-]*\/?|https?:\S+|CommandFailed)$/;

export const sources = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true }).flatMap((each) => {
    const path = join(folder, each.name);
    return each.isDirectory()
      ? each.name === "testing"
        ? []
        : sources(path)
      : /(?<!\.test)\.ts$/.test(each.name)
        ? [path]
        : [];
  });

export interface Words {
  /** What `l10n.t` is called with; undefined where that is no literal, which no translator would find. */
  readonly messages: (string | undefined)[];
  /** Texts that are shown without `l10n.t`. */
  readonly missed: ts.Node[];
}

export function parse(path: string): ts.SourceFile {
  return ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.Latest, true);
}

export function wordsOf(file: ts.SourceFile): Words {
  const found: Words = { messages: [], missed: [] };
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && node.expression.getText(file).endsWith("l10n.t")) {
      const [message] = node.arguments;
      found.messages.push(message && ts.isStringLiteralLike(message) ? message.text : undefined);
      return;
    }
    if (isShownText(node, file)) {
      found.missed.push(node);
      return;
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return found;
}

/** Whether it is a text with words in it at a place that the editor shows. */
function isShownText(node: ts.Node, file: ts.SourceFile): boolean {
  const words = ts.isTemplateExpression(node)
    ? [node.head, ...node.templateSpans.map((span) => span.literal)].map(({ text }) => text).join(" ")
    : ts.isStringLiteralLike(node)
      ? node.text
      : "";
  const plain = words.replaceAll(/\$\([\w~-]+\)|^peft-daemon$/g, "").trim();
  if (!/\p{Letter}{2,}/u.test(plain) || NO_WORDS.test(words)) {
    return false;
  }
  return isShown(node, file) || (SENTENCE.test(plain) && !OF_PROGRAMS.includes(words) && !isForDevelopers(node, file));
}

/** Whether it goes to the log, to a program, or is compared with. */
function isForDevelopers(node: ts.Node, file: ts.SourceFile): boolean {
  if (ts.isCaseClause(node.parent) || /^<meta|^import /.test(node.getText(file).slice(1))) {
    return true;
  }
  for (let each = node.parent; !ts.isStatement(each) && !ts.isSourceFile(each); each = each.parent) {
    if (ts.isCallExpression(each) && /^(own\.|this\.#)?log\b|Log\.|[lL]og\[/.test(each.expression.getText(file))) {
      return true;
    }
  }
  return false;
}

/** Whether the value of this expression ends where it is shown; conditions, arrays and spreads pass it on. */
function isShown(node: ts.Node, file: ts.SourceFile): boolean {
  const parent = node.parent;
  if (ts.isPropertyAssignment(parent) || ts.isPropertyDeclaration(parent)) {
    return parent.initializer === node && SHOWN_PROPERTIES.test(parent.name.getText(file));
  }
  if (ts.isVariableDeclaration(parent)) {
    return SHOWN_PROPERTIES.test(parent.name.getText(file));
  }
  if (ts.isBinaryExpression(parent) && parent.operatorToken.kind === ts.SyntaxKind.EqualsToken) {
    const name = ts.isPropertyAccessExpression(parent.left) ? parent.left.name.text : parent.left.getText(file);
    return parent.right === node && SHOWN_PROPERTIES.test(name);
  }
  if (ts.isCallExpression(parent) || ts.isNewExpression(parent)) {
    const called = parent.expression;
    const name = ts.isPropertyAccessExpression(called) ? called.name.text : called.getText(file);
    return SHOWN_BY.test(name) && (parent.arguments?.includes(node as ts.Expression) ?? false);
  }
  const passes =
    ts.isConditionalExpression(parent) ||
    ts.isArrayLiteralExpression(parent) ||
    ts.isParenthesizedExpression(parent) ||
    ts.isSpreadElement(parent) ||
    ts.isTemplateSpan(parent) ||
    ts.isTemplateExpression(parent) ||
    (ts.isBinaryExpression(parent) && parent.operatorToken.kind !== ts.SyntaxKind.EqualsEqualsEqualsToken);
  return passes && isShown(parent, file);
}
