// The clients of @a2a-js/sdk, 1.x and 0.3.x, as their users make them: from a card, with their own timeouts.
//
// Owns: calls as spoken.py has them, in the words of these SDKs.
// Knows nothing of: proxies, but that some server wants a token in a header.
//
// node client_js.mjs 1.x|0.3.x FOLDER    FOLDER holds node_modules, made by `npm ci`

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [generation, folder] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
const modern = generation === "1.x";
const sdk = require(modern ? "@a2a-js/sdk/client" : "a2a-js-03/client");
const types = modern ? require("@a2a-js/sdk") : null;

const tell = (facts) => process.stdout.write(`${JSON.stringify(facts)}\n`);
const words = (parts) => (parts ?? []).map((part) => part.text ?? "").join("");
const stateOf = (status) => String(status?.state ?? "").replace("TASK_STATE_", "").toLowerCase().replaceAll("_", "-");

// What came back, in the words of spoken.py; `json` is its JSON in either version.
function eventOf(json) {
  const said = json.task ?? json.message ?? json.statusUpdate ?? json.artifactUpdate ?? json;
  const known = { task: said.taskId, context: said.contextId };
  if (said.messageId) return { kind: "message", ...known, text: words(said.parts) };
  if (said.artifact) return { kind: "artifact", ...known, text: words(said.artifact.parts) };
  if (said.id) {
    const text = (said.artifacts ?? []).map((artifact) => words(artifact.parts)).join("");
    return { kind: "task", task: said.id, context: said.contextId, state: stateOf(said.status), text };
  }
  return { kind: "status", ...known, state: stateOf(said.status), text: words(said.status?.message?.parts) };
}

function jsonOf(said) {
  if (!modern) return said;
  if (said.payload !== undefined) return types.StreamResponse.toJSON(said);
  return said.status === undefined ? types.Message.toJSON(said) : types.Task.toJSON(said);
}

// One of many clients in this process: a card, and a client for each way of sending.
class Talking {
  clients = {};
  compat = modern ? { legacyCompat: { enabled: true } } : {};

  fetchImpl = (input, init = {}) => {
    const headers = new Headers(init.headers);
    headers.set("Holdfast-Token", this.token);
    return fetch(input, { ...init, headers });
  };

  async connect(call) {
    this.token = call.token;
    this.binding = call.binding;
    this.clients = {};
    const resolver = new sdk.DefaultAgentCardResolver({ fetchImpl: this.fetchImpl, ...this.compat });
    this.card = await resolver.resolve(`${call.url}/`);
    return { kind: "card", text: this.card.name };
  }

  async client(mode) {
    if (this.clients[mode] === undefined) {
      const kind = this.binding === "JSONRPC" ? sdk.JsonRpcTransportFactory : sdk.RestTransportFactory;
      const factory = new sdk.ClientFactory({
        transports: [new kind({ fetchImpl: this.fetchImpl, ...this.compat })],
        clientConfig: { polling: mode === "now" },
      });
      this.clients[mode] = await factory.createFromAgentCard(this.card);
    }
    return this.clients[mode];
  }
}

const talking = {};

// Who is to be notified, as each generation writes it: 1.x a configuration of a task, 0.3.x one beside the task's id.
function receiverOf(call) {
  const { url, token, credentials } = call.push;
  const authentication = modern ? { scheme: "Bearer", credentials } : { schemes: ["Bearer"], credentials };
  const receiver = { id: "of-test", url, token, authentication };
  return modern ? types.TaskPushNotificationConfig.fromJSON({ ...receiver, taskId: call.task }) : receiver;
}

function requestOf(call) {
  const message = { messageId: call.message, taskId: call.task, contextId: call.context };
  const configuration = call.mode === "now" ? (modern ? { returnImmediately: true } : { blocking: false }) : {};
  if (modern) {
    const full = { ...message, role: "ROLE_USER", parts: [{ text: call.text }] };
    const request = types.SendMessageRequest.fromJSON({ message: full, configuration });
    if (call.push) request.configuration.taskPushNotificationConfig = receiverOf(call);
    return request;
  }
  const full = { ...message, kind: "message", role: "user", parts: [{ kind: "text", text: call.text }] };
  if (call.push) configuration.pushNotificationConfig = receiverOf(call);
  return { message: full, configuration };
}

async function* work(call) {
  talking[call.at] ??= new Talking();
  if (call.do === "connect") {
    yield await talking[call.at].connect(call);
    return;
  }
  const client = await talking[call.at].client(call.mode ?? "unary");
  const tenant = modern ? { tenant: "" } : {};
  if (call.do === "send" && call.mode === "stream") {
    for await (const said of client.sendMessageStream(requestOf(call))) yield eventOf(jsonOf(said));
  } else if (call.do === "send") {
    yield eventOf(jsonOf(await client.sendMessage(requestOf(call))));
  } else if (call.do === "get") {
    yield eventOf(jsonOf(await client.getTask({ id: call.task, ...tenant })));
  } else if (call.do === "cancel") {
    yield eventOf(jsonOf(await client.cancelTask({ id: call.task, ...tenant })));
  } else if (call.do === "subscribe") {
    for await (const said of client.resubscribeTask({ id: call.task, ...tenant })) yield eventOf(jsonOf(said));
  } else if (call.do === "list") {
    const listed = await client.listTasks(types.ListTasksRequest.fromJSON({ contextId: call.context }));
    for (const task of listed.tasks) yield eventOf(jsonOf(task));
  } else if (call.do === "notify" && modern) {
    const made = await client.createTaskPushNotificationConfig(receiverOf(call));
    yield { kind: "receiver", task: made.taskId, text: made.url };
  } else if (call.do === "notify") {
    const wanted = { taskId: call.task, pushNotificationConfig: receiverOf(call) };
    const made = await client.setTaskPushNotificationConfig(wanted);
    yield { kind: "receiver", task: made.taskId, text: made.pushNotificationConfig.url };
  }
}

async function serve(call) {
  try {
    for await (const event of work(call)) tell({ call: call.call, event });
    tell({ call: call.call, end: true });
  } catch (error) {
    tell({ call: call.call, error: `${error?.name}: ${error?.message}` });
  }
}

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => void serve(JSON.parse(line)));
lines.on("close", () => process.exit(0));
