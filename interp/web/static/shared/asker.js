// Asks the server, and drops answers that come too late.

// The newest question of each kind counts: an answer to an older one is dropped, as is any after `signal` has aborted.
export class Asker {
  constructor(signal) {
    this.signal = signal;
    this.last = {};
  }

  cancel(kind) {
    this.last[kind] = (this.last[kind] || 0) + 1;
  }

  // {answer}, {error: text}, or null when something newer came first.
  async ask(kind, call, silence) {
    this.cancel(kind);
    const mine = this.last[kind];
    let out;
    try {
      const answer = await call();
      // gradio answers a crash on the server with nothing
      out = !answer ? { error: silence } : answer.error ? { error: String(answer.error) } : { answer };
    } catch (error) {
      out = { error: String(error?.message || error || silence) };
    }
    return this.signal.aborted || mine !== this.last[kind] ? null : out;
  }
}
