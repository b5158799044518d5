// The standalone page: unpacks the payload beside this script and shows it.
import { unpack } from "../shared/unpack.js";
import { mount } from "./view.js";

const view = mount(document.body, { followSystem: true });
unpack()
  .then((payload) => view.set(payload))
  .catch((error) => view.message(`This file could not be read: ${error.message}`, true));
