// Where a message is written.

import { byId } from "./dom.js";

const TALLEST = 0.4; // of the window

export class Composer {
  /** `send(text)` and `stop()` are what its button and keys do, `editLast()` what Up does. */
  constructor({ send, stop, editLast }) {
    this.form = byId("composer");
    this.area = byId("prompt");
    this.button = byId("send");
    this.stopButton = byId("stop");
    this.send = send;
    this.ready = false;
    this.area.oninput = () => this.#fit();
    this.stopButton.onclick = stop;
    this.form.onsubmit = (event) => {
      event.preventDefault();
      this.#submit();
    };
    // A keyboard on glass has no other way to begin a new line.
    const glass = matchMedia("(pointer: coarse)");
    this.area.onkeydown = (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter" && !event.shiftKey && !glass.matches) {
        event.preventDefault();
        this.#submit();
      } else if (event.key === "ArrowUp" && !this.area.value) {
        event.preventDefault();
        editLast();
      }
    };
    this.#fit();
  }

  /** Tell whether a message can be sent now, and whether an answer can be stopped. */
  state({ ready, running }) {
    this.ready = ready && !running;
    this.button.hidden = running;
    this.stopButton.hidden = !running;
    this.#enable();
  }

  focus() {
    if (!matchMedia("(pointer: coarse)").matches) this.area.focus();
  }

  #submit() {
    const text = this.area.value.trim();
    if (!text || !this.ready) return;
    this.area.value = "";
    this.#fit();
    this.send(text);
  }

  #fit() {
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(this.area.scrollHeight, innerHeight * TALLEST)}px`;
    this.#enable();
  }

  #enable() {
    this.button.disabled = !this.ready || !this.area.value.trim();
  }
}
