// Speech while it is spoken: samples go to the gateway as they come, what has been understood so far comes back.

import * as api from "./api.js";

const HIGHEST_RATE = 48000; // Hz, that a stream may have

/**
 * Send what `stream` (a MediaStream) hears to a task's service. → { end, answer }: `end()` says that this was all, and
 * `answer` is a promise of what `/predict` would have answered, { body, milliseconds } since the end; it fails with an Error
 * in words. `heard(text)` is called with all that has been understood, whenever that has changed.
 */
export async function live(task, stream, heard) {
  const sound = new AudioContext();
  if (sound.sampleRate > HIGHEST_RATE) {
    sound.close();
    throw new Error(`Sound comes at ${sound.sampleRate} Hz here, and a stream takes at most ${HIGHEST_RATE}.`);
  }
  await sound.audioWorklet.addModule(new URL("live_samples.js", import.meta.url));
  const samples = new AudioWorkletNode(sound, "samples", { numberOfOutputs: 0 });
  const socket = api.streamOf(task);
  let ended = 0; // when
  const waiting = []; // what was said before the gateway had picked up

  function send(message) {
    if (socket.readyState === WebSocket.CONNECTING) waiting.push(message);
    else if (socket.readyState === WebSocket.OPEN) socket.send(message);
  }

  const quiet = () => sound.state !== "closed" && sound.close();

  const answer = new Promise((resolve, reject) => {
    socket.addEventListener("open", () => waiting.splice(0).forEach((message) => socket.send(message)));
    socket.addEventListener("message", ({ data }) => {
      const told = JSON.parse(data);
      if (told.predictions) resolve({ body: told, milliseconds: performance.now() - ended });
      else heard(told.partial);
    });
    socket.addEventListener("close", ({ reason }) => {
      quiet();
      reject(new Error(reason || "The gateway took no stream.")); // without effect behind the answer
    });
  });
  answer.catch(() => {}); // who waits for it is told; until then nobody does

  send(JSON.stringify({ rate: sound.sampleRate }));
  samples.port.onmessage = ({ data }) => ended || send(data);
  sound.createMediaStreamSource(stream).connect(samples);
  await sound.resume();

  function end() {
    if (ended) return;
    ended = performance.now();
    quiet();
    send(JSON.stringify({ end: true }));
  }
  return { end, answer };
}
