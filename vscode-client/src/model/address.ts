/** A server's address, and what a server wants before it answers, as the command line says it. */
import { l10n } from "vscode";

export function addressObjection(typed: string): string | undefined {
  if (typed === "") {
    return l10n.t("An address such as https://gpu.example.com:8000");
  }
  const url = URL.canParse(typed) ? new URL(typed) : undefined;
  return url && ["http:", "https:"].includes(url.protocol) && url.hostname !== "" && url.username === ""
    ? undefined
    : l10n.t("An address begins with https:// or http://, and a key does not belong into it");
}

export function isEncrypted(url: string): boolean {
  return new URL(url).protocol === "https:";
}

/** It has several models, and none was named. */
export function needsModel(message: string): boolean {
  return message.includes("`upstream_model` chooses none");
}

export function needsKey(message: string): boolean {
  return message.includes("peft-daemon upstream login");
}
