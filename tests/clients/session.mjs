/**
 * One agent session as a GraphQL client lives it: sign in, create, watch, send, lose the connection in the middle of a
 * run, come back with the cursor, and read everything again from the start. Prints what it saw as JSON lines.
 *
 * `node CLIENT.mjs URL WS_URL TOKEN`, where CLIENT.mjs passes its way of connecting to `runSession`: a function from
 * `{url, wsUrl, authorization}` to `{execute(document, variables), subscribe(document, variables, sink), close()}`,
 * where `execute` resolves with the data and `sink` has `next(data)`, `error(error)` and `complete()`.
 */
import { readFileSync } from "node:fs";

const document = (name) => readFileSync(new URL(`documents/${name}.graphql`, import.meta.url), "utf8");
const VIEWER = document("viewer");
const CREATE_SESSION = document("create_session");
const SEND_MESSAGE = document("send_message");
const SESSION_EVENTS = document("session_events");

export async function runSession(connect) {
  const [url, wsUrl, token] = process.argv.slice(2);
  const open = () => connect({ url, wsUrl, authorization: `Bearer ${token}` });

  let client = open();
  const { viewer } = await client.execute(VIEWER, {});
  print({ step: "viewer", viewer });
  const { createSession } = await client.execute(CREATE_SESSION, { input: { runtime: "script" } });
  const sessionId = createSession.session.id;
  const send = (text) => client.execute(SEND_MESSAGE, { input: { sessionId, text } });

  let stream = watch(client, sessionId, null);
  await send("/tool list_files {}");
  const before = await stream.readUntil((event) => event.type === "TOOL_CALL_START");
  await client.close();

  client = open();
  stream = watch(client, sessionId, before.at(-1).cursor);
  const after = await stream.readUntil((event) => event.type === "RUN_FINISHED");
  await send("/tool list_files {}");
  after.push(...(await stream.readUntil((event) => event.type === "RUN_FINISHED")));
  await client.close();

  client = open();
  const last = after.at(-1);
  const again = await watch(client, sessionId, null).readUntil((event) => event.seq === last.seq && event.type === last.type);
  await client.close();

  print({ step: "before", events: before });
  print({ step: "after", events: after });
  print({ step: "again", events: again });
}

/** Subscribes to a session's events; `readUntil` resolves with the unread events up to the first that fits. */
function watch(client, sessionId, after) {
  const unread = [];
  let failure;
  let wake = () => {};
  client.subscribe(
    SESSION_EVENTS,
    { sessionId, after },
    {
      next: ({ sessionEvents }) => (unread.push(sessionEvents), wake()),
      error: (error) => ((failure = error), wake()),
      complete: () => ((failure ??= new Error("The server ended the stream.")), wake()),
    },
  );
  return {
    async readUntil(fits) {
      const read = [];
      for (;;) {
        while (unread.length > 0) {
          read.push(unread.shift());
          if (fits(read.at(-1))) return read;
        }
        if (failure) throw new Error(`The stream broke: ${JSON.stringify(failure)} ${failure}`);
        await new Promise((resolve) => (wake = resolve));
      }
    },
  };
}

function print(line) {
  console.log(JSON.stringify(line));
}
