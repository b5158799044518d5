// Unpacks the payload that lies beside the script of a standalone page.
import { decodeBytes } from "./payload.js";

/** @returns {Promise<any>} */
export async function unpack() {
  const text = document.getElementById("payload")?.textContent ?? "";
  const stream = new Blob([decodeBytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
