// From the microphone to a WAV file, which every service of speech reads.

export const MOST_SECONDS = 60; // the services hear no longer recordings
const RATE = 48000; // Hz

/** Why nothing can be recorded here; null where it can. */
export function hindrance() {
  if (!window.isSecureContext) return "The microphone works on https and on localhost only.";
  return navigator.mediaDevices?.getUserMedia && window.MediaRecorder ? null : "This browser cannot record.";
}

/**
 * Begin to record. → { stream, stop, done }: `done` is a promise of the WAV file (a Blob), once `stop()` was called, the time
 * was up or the microphone went. An Error says in words why it cannot begin.
 */
export async function record() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    throw new Error(reason(error), { cause: error });
  }
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.addEventListener("dataavailable", ({ data }) => parts.push(data));
  const stopped = new Promise((resolve) => recorder.addEventListener("stop", resolve, { once: true }));
  const stop = () => recorder.state === "inactive" || recorder.stop();
  const timer = setTimeout(stop, 1000 * (MOST_SECONDS - 0.5));
  const done = stopped.then(async () => {
    clearTimeout(timer);
    stream.getTracks().forEach((track) => track.stop());
    return asWav(new Blob(parts, { type: recorder.mimeType }));
  });
  recorder.start();
  return { stream, stop, done };
}

function reason(error) {
  if (error.name === "NotAllowedError") return "The browser may not use the microphone; allow it beside the address.";
  if (error.name === "NotFoundError") return "There is no microphone.";
  return `The microphone does not work: ${error.message || error.name}`;
}

/** What a browser recorded, in whatever codec it has, as one channel of 16-bit samples. */
async function asWav(recorded) {
  const context = new OfflineAudioContext(1, 1, RATE); // decodes, at its rate, where no sound can be played too
  let sound;
  try {
    sound = await context.decodeAudioData(await recorded.arrayBuffer());
  } catch (error) {
    throw new Error("Nothing was recorded; speak a little longer.", { cause: error });
  }
  return new Blob([wav(mixed(sound), sound.sampleRate)], { type: "audio/wav" });
}

/** The channels' mean, (N,). */
function mixed(sound) {
  const mean = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel += 1) {
    sound.getChannelData(channel).forEach((sample, at) => { mean[at] += sample / sound.numberOfChannels; });
  }
  return mean;
}

/** RIFF/WAVE, format 1 (PCM), 16 bits, one channel. */
function wav(samples, rate) {
  const file = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((letter, i) => file.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  file.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  file.setUint32(16, 16, true); // bytes of the format's description
  file.setUint16(20, 1, true); // PCM
  file.setUint16(22, 1, true); // channels
  file.setUint32(24, rate, true);
  file.setUint32(28, 2 * rate, true); // bytes a second
  file.setUint16(32, 2, true); // bytes a frame
  file.setUint16(34, 16, true); // bits a sample
  text(36, "data");
  file.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, at) => {
    const level = Math.max(-1, Math.min(1, sample));
    file.setInt16(44 + 2 * at, Math.round(level * 32767), true);
  });
  return file.buffer;
}
