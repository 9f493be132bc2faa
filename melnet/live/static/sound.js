// Samples that are kept: the last minute of what was heard, and WAV files.

const KEPT_SECONDS = 60;

export class LastMinute {
  #chunks = [];
  #length = 0;
  #rate;

  constructor(rate) {
    this.#rate = rate;
  }

  push(chunk) {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    // A little more than a minute: some of it is still to be heard.
    while (this.#length - this.#chunks[0].length > (KEPT_SECONDS + 30) * this.#rate) {
      this.#length -= this.#chunks.shift().length;
    }
  }

  // Forget the last samples, which nobody heard.
  drop(count) {
    const heard = joined(this.#chunks).subarray(0, Math.max(0, this.#length - count));
    this.#chunks = [heard];
    this.#length = heard.length;
  }

  // The last minute without the last samples, which are still to be heard.
  heard(unheard) {
    return joined(this.#chunks).subarray(0, Math.max(0, this.#length - unheard)).slice(-KEPT_SECONDS * this.#rate);
  }
}

export function joined(chunks) {
  const all = new Float32Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

// A mono WAV file of 16 bits; what is louder than full scale makes all of it quieter.
export function wavFile(samples, rate) {
  const peak = samples.reduce((most, sample) => Math.max(most, Math.abs(sample)), 1);
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channel
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => view.setInt16(44 + 2 * i, Math.round((sample / peak) * 32767), true));
  return new Blob([view], { type: "audio/wav" });
}

// Records the microphone until stopped.
export class Recording {
  blocks = [];
  seconds = 0;

  async start(onBlock) {
    this.microphone = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    this.context = new AudioContext(); // at the microphone's own rate
    await this.context.audioWorklet.addModule("worklets.js");
    const recorder = new AudioWorkletNode(this.context, "recorder", { numberOfOutputs: 0 });
    recorder.port.onmessage = ({ data }) => {
      this.blocks.push(data);
      this.seconds += data.length / this.context.sampleRate;
      onBlock(this.seconds);
    };
    this.context.createMediaStreamSource(this.microphone).connect(recorder);
  }

  async stop() {
    this.microphone.getTracks().forEach((track) => track.stop());
    const rate = this.context.sampleRate;
    await this.context.close();
    return wavFile(joined(this.blocks), rate);
  }
}
