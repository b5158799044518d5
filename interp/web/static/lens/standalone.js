// The standalone page: unpacks the payload beside this script and shows it.
import { decodeBytes } from "../shared/payload.js";
import { mount } from "./view.js";

async function unpack(text) {
  const stream = new Blob([decodeBytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const view = mount(document.body, { followSystem: true });
unpack(document.getElementById("payload").textContent)
  .then((payload) => view.set(payload))
  .catch((error) => view.message(`This file could not be read: ${error.message}`, true));
