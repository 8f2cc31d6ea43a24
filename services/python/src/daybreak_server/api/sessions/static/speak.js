// Opens a session, sends the microphone's audio, and shows the text. After a lost connection, the page continues
// without loss: it keeps audio until the server confirms it, and asks for the events after the last one it has seen.
const RATE = 16000;
const base = new URL('.', location.href).pathname.replace(/\/$/, '');
const element = (id) => document.getElementById(id);
const state = {live: null};
window.daybreak = state; // for tests and for curious readers

function status(message) {
  element('status').textContent = message;
}

class Session {
  constructor(session) {
    this.session = session;
    this.kept = [];      // pieces of audio that the server may still need
    this.start = 0;      // the position of their first sample
    this.after = '';
    this.ended = false;
    this.inputEnded = false;
    this.text = '';
    this.failures = 0;
  }

  connect() {
    const scheme = location.protocol === 'https:' ? 'wss' : 'ws';
    const query = `encoding=pcm16&sample_rate=${RATE}&after=${this.after}`;
    const path = `${base}/v1/sessions/${this.session.id}/stream?${query}`;
    const socket = this.socket = new WebSocket(`${scheme}://${location.host}${path}`);
    socket.ready = false;
    socket.onmessage = (message) => {
      if (socket === this.socket) this.receive(socket, JSON.parse(message.data));
    };
    socket.onclose = (event) => {
      if (socket === this.socket) this.closed(event);
    };
  }

  send(buffer) {
    this.kept.push(new Int16Array(buffer));
    if (this.socket.ready && this.socket.readyState === WebSocket.OPEN) this.socket.send(buffer);
  }

  end() {
    this.inputEnded = true;
    if (this.socket.ready && this.socket.readyState === WebSocket.OPEN) this.socket.send('{"type": "end"}');
  }

  receive(socket, message) {
    if (message.type === 'ready') {
      this.forget(message.send_from);
      let skipped = message.send_from - this.start;
      for (const piece of this.kept) {
        socket.send(piece.subarray(skipped));
        skipped = 0;
      }
      socket.ready = true;
      this.failures = 0;
      if (this.inputEnded) socket.send('{"type": "end"}');
      status(message.session.state === 'waiting' ? 'Waiting for a group …' : 'Listening.');
    } else if (message.type === 'received') {
      this.forget(message.send_from);
    } else if (message.type === 'error') {
      status(message.message);
      if (message.fatal && !['store_unavailable', 'shutting_down'].includes(message.code)) this.ended = true;
    } else {
      this.after = message.id;
      show(this, message);
    }
  }

  forget(position) {
    while (this.kept.length && this.start + this.kept[0].length <= position) {
      this.start += this.kept.shift().length;
    }
  }

  closed(event) {
    if (this.ended || event.code === 1000 || (event.code >= 4000 && event.code < 5000)) return finish(this);
    this.failures += 1;
    status('The connection is lost. Connecting again …');
    setTimeout(() => this.connect(), Math.min(5000, 200 * 2 ** this.failures));
  }
}

function show(session, event) {
  const lines = element('text');
  if (event.type === 'started') status('Listening.');
  if (event.type === 'waiting') status('Waiting for a group …');
  if (event.type === 'text') {
    session.text += event.data.text;
    if (!session.line) session.line = lines.appendChild(document.createElement('p'));
    session.line.textContent += event.data.text;
  }
  if (event.type === 'segment') session.line = null;
  if (event.type === 'ended') {
    session.ended = true;
    status(event.data.error ? event.data.error.message : `Ended: ${event.data.reason}.`);
  }
}

async function open() {
  const body = {target: element('target').value, client: 'the page /speak'};
  if (element('pool').value) body.pool = element('pool').value;
  const options = {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)};
  const response = await fetch(`${base}/v1/sessions`, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return new Session(answer);
}

function offer(list, values) {
  const options = [...new Set(values)].map((value) => Object.assign(document.createElement('option'), {value}));
  element(list).replaceChildren(...options);
}

// Shows which pools and languages there are, and what users of their models should know.
async function describe() {
  const models = (await (await fetch(`${base}/v1/models`)).json()).data || [];
  const pools = models.filter((model) => model.kind === 'sessions');
  offer('pools', pools.map((pool) => pool.id));
  offer('languages', pools.flatMap((pool) => pool.pairs || []).map((pair) => pair.target_name));
  const notices = pools.filter((pool) => pool.notice);
  element('notice').textContent = notices.map((pool) => (pools.length > 1 ? `${pool.id}: ` : '') + pool.notice).join(' ');
  element('notice').hidden = !notices.length;
}

async function start() {
  if (!navigator.mediaDevices) {
    throw new Error('Browsers allow the microphone only on https:// and http://localhost. Open this page there.');
  }
  const stream = await navigator.mediaDevices.getUserMedia({audio: {channelCount: 1}});
  const context = new AudioContext({sampleRate: RATE});
  const release = () => {
    stream.getTracks().forEach((track) => track.stop());
    if (context.state !== 'closed') context.close();
  };
  try {
    return await listen(stream, context, release);
  } catch (error) {
    release(); // otherwise the browser would keep the microphone open without a session
    throw error;
  }
}

async function listen(stream, context, release) {
  await context.audioWorklet.addModule(`${base}/speak/microphone.js`);
  const live = await open();
  live.release = release;
  const node = new AudioWorkletNode(context, 'microphone', {numberOfOutputs: 0});
  node.port.onmessage = (message) => { if (!live.inputEnded) live.send(message.data); };
  context.createMediaStreamSource(stream).connect(node);
  element('text').textContent = '';
  live.connect();
  return live;
}

function finish(session) {
  session.release();
  element('start').disabled = false;
  element('stop').disabled = true;
}

element('form').onsubmit = async (event) => {
  event.preventDefault();
  element('start').disabled = true;
  status('Asking for the microphone …');
  try {
    state.live = await start();
    element('stop').disabled = false;
  } catch (error) {
    status(`${error.message || error}`);
    element('start').disabled = false;
  }
};
element('stop').onclick = () => {
  element('stop').disabled = true;
  status('Waiting for the rest of the text …');
  state.live.release();
  state.live.end();
};
describe().catch(() => {}); // the page also works without it
