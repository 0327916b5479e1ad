import ts from "typescript";
import { expect, it } from "vitest";
import { parse, sources } from "./testing/words";

const COMMAND =
  /peft-daemon (?:start|stop|restart|doctor|models|adapters|setup|tune|learn|status|config|evaluate|report)|peft-daemon: |`/;

interface Message {
  readonly text: string;
  readonly buttons: number;
}

/** The calls that show a message: what it says, and how many further arguments there are. */
function messagesIn(file: ts.SourceFile): Message[] {
  const found: Message[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node) && /\bshow(Error|Warning|Information)Message$/.test(node.expression.getText(file))) {
      const [message, ...others] = node.arguments;
      found.push({ text: message?.getText(file) ?? "", buttons: others.length });
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  return found;
}

it("no message tells a command without a button: the editor cuts such a message after its first line", () => {
  const messages = sources(__dirname).map(parse).flatMap(messagesIn);
  expect(messages.filter(({ buttons }) => buttons === 0).length).toBeGreaterThan(1);
  expect(messages.filter(({ text, buttons }) => buttons === 0 && COMMAND.test(text))).toEqual([]);
});
