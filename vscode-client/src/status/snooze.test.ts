import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Snooze, SNOOZE_MS } from "./snooze";

describe("Snooze", () => {
  beforeEach(() => {
    vi.useFakeTimers({ now: 1_000_000 });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it("ends by itself after ten minutes, and tells of both", () => {
    const changed = vi.fn();
    const snooze = new Snooze(changed);
    snooze.toggle();
    expect(snooze.until?.getTime()).toBe(1_000_000 + 10 * 60_000);
    vi.advanceTimersByTime(SNOOZE_MS - 1);
    expect(changed).toHaveBeenCalledTimes(1);
    vi.advanceTimersByTime(1);
    expect(snooze.until).toBeUndefined();
    expect(changed).toHaveBeenCalledTimes(2);
  });

  it("is woken by a second call, whose pause does not end a later one", () => {
    const snooze = new Snooze(() => undefined);
    snooze.toggle();
    vi.advanceTimersByTime(SNOOZE_MS / 2);
    snooze.toggle();
    expect(snooze.until).toBeUndefined();
    snooze.toggle();
    vi.advanceTimersByTime(SNOOZE_MS / 2);
    expect(snooze.until).toBeDefined();
    snooze.dispose();
    expect(vi.getTimerCount()).toBe(0);
  });
});
