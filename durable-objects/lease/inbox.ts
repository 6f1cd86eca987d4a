import { CLOSE, FRAME_LIMIT, FromLease } from "@gpux/protocol/frames";
import { inputHash } from "@gpux/protocol/job";
import { parserOf } from "@gpux/protocol/parser";
import { recoverSigner } from "@gpux/protocol/signature";
import { HOT } from "./deferral.ts";
import type { Life } from "./life.ts";
import { claimsOf } from "./signatures.ts";
import type { State } from "./state.ts";
import { broughtBack } from "./tickets.ts";

const parseFrame = parserOf(FromLease);

/** What comes over the data socket: parsed, its signatures checked, told to the machine in order. */
export class Inbox {
  readonly #life: Life;
  /** Frames are dealt with in order although some need a signature check first. */
  #last: Promise<void> = Promise.resolve();

  constructor(life: Life) {
    this.#life = life;
  }

  take(socket: WebSocket, raw: string | ArrayBuffer): void {
    const text = typeof raw === "string" && raw.length <= FRAME_LIMIT ? raw : "";
    const frame = parseFrame(parseJson(text));
    if (!frame.success) return socket.close(CLOSE.badFrame, "a frame does not fit the protocol");
    this.#last = this.#last
      .then(() => this.#receive(socket, frame.data))
      .catch((error: unknown) => {
        console.error(
          JSON.stringify({
            event: "frame_failed",
            lease: this.#life.state?.lease.id,
            frame: frame.data.t,
            error: String(error),
          }),
        );
      });
  }

  async #receive(socket: WebSocket, frame: FromLease): Promise<void> {
    if (this.#life.state === null || !this.#life.agent.is(socket)) return;
    // While a signature is being checked a time-out may end a job, and the frame then claims one more.
    const checked = new Set<string>();
    for (let claimed: State | null = null; claimed !== this.#life.state; ) {
      claimed = this.#life.state;
      for (const { digest, signature } of claimsOf(claimed, frame)) {
        if (checked.has(digest)) continue;
        if ((await recoverSigner(digest, signature)) !== claimed.lease.terms.providerSigner)
          return socket.close(CLOSE.forbidden, "a signature is not the provider's");
        checked.add(digest);
      }
      if (this.#life.state === null || !this.#life.agent.is(socket)) return;
    }
    if (frame.t === "accepted") await this.#restore(frame);
    else this.#life.apply({ t: "frame", frame }, HOT.has(frame.t));
  }

  /** ACK-5: of a job that the last life answered and did not come to write down. */
  async #restore(frame: Extract<FromLease, { t: "accepted" }>): Promise<void> {
    const { job } = frame;
    const brought = broughtBack(this.#life.state?.lease.secret ?? null, frame);
    if (brought === null) return;
    const { ticket, request } = brought;
    if ((await inputHash(request)) !== ticket.inputHash) return;
    if (this.#life.job(job) !== null) return;
    // Its rows come with those of its end, which may be known to its caller: alone they would have it end otherwise.
    this.#life.apply({ t: "restore", ticket, request }, true);
    if (ticket.session !== null && this.#life.job(job) !== null)
      this.#life.sessions.takeBack(ticket.session, job, ticket.max_price);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
