// Asks the server and drops late answers.

/** Only the newest question of each kind counts: answers to older ones are dropped, and all of them once `signal` has aborted. */
export class Asker {
  /** @param {AbortSignal} signal */
  constructor(signal) {
    this.signal = signal;
    /** @type {Record<string, number>} */
    this.last = {};
  }

  /** @param {string} kind */
  cancel(kind) {
    this.last[kind] = (this.last[kind] || 0) + 1;
  }

  /**
   * The answer or an error in words; null when a newer question came first.
   * @param {string} kind
   * @param {() => any} call
   * @param {string} silence the error when the server says nothing
   * @returns {Promise<{ answer: any, error?: undefined } | { answer?: undefined, error: string } | null>}
   */
  async ask(kind, call, silence) {
    this.cancel(kind);
    const mine = this.last[kind];
    let out;
    try {
      const answer = await call();
      // gradio answers a crash on the server with nothing
      out = !answer ? { error: silence } : answer.error ? { error: String(answer.error) } : { answer };
    } catch (error) {
      out = { error: String(/** @type {any} */ (error)?.message || error || silence) };
    }
    return this.signal.aborted || mine !== this.last[kind] ? null : out;
  }
}
