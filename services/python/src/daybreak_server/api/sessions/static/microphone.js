// Runs in the audio thread: passes the microphone's samples on, as 16-bit PCM, in pieces of a tenth of a second.
class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.samples = new Int16Array(Math.round(sampleRate / 10));
    this.count = 0;
  }

  process([[channel]]) {
    for (const value of channel || []) {
      this.samples[this.count++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.count === this.samples.length) {
        this.port.postMessage(this.samples.slice().buffer);
        this.count = 0;
      }
    }
    return true;
  }
}
registerProcessor('microphone', Microphone);
