// In the browser's audio thread: the first channel, a tenth of a second at a time, as 16-bit samples.

class Samples extends AudioWorkletProcessor {
  constructor() {
    super();
    this.part = new Int16Array(Math.round(sampleRate / 10));
    this.filled = 0;
  }

  process([[channel]]) {
    for (const level of channel ?? []) {
      this.part[this.filled] = Math.round(Math.max(-1, Math.min(1, level)) * 32767);
      this.filled += 1;
      if (this.filled === this.part.length) {
        this.port.postMessage(this.part.slice().buffer);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("samples", Samples);
