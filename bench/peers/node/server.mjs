// The read documents of bench/cases.py, and a stream, by the usual Node.js servers.
//
//   node server.mjs yoga PORT DATABASE_URL         graphql-yoga with data loaders; graphql-ws for sockets
//   node server.mjs mercurius PORT DATABASE_URL    mercurius on fastify with its JIT and its loaders
//
// Both check the same tokens as the product, remembered as long. Their sendMessage only announces: it writes nothing.
import { createHash } from 'node:crypto';
import { EventEmitter, on } from 'node:events';
import { createServer } from 'node:http';
import { makeExecutableSchema } from '@graphql-tools/schema';
import DataLoader from 'dataloader';
import Fastify from 'fastify';
import { useServer } from 'graphql-ws/use/ws';
import { createYoga } from 'graphql-yoga';
import mercurius from 'mercurius';
import pg from 'pg';
import { WebSocketServer } from 'ws';

const [kind, port, databaseUrl] = process.argv.slice(2);
const REMEMBERED_MS = 1000;

// What PostgreSQL says in its own words: 2025-01-01 00:00:00+00, and counts as numbers.
pg.types.setTypeParser(pg.types.builtins.TIMESTAMPTZ, (text) => text.replace(' ', 'T') + ':00');
pg.types.setTypeParser(pg.types.builtins.INT8, Number);
const url = new URL(databaseUrl.replace('@/', '@localhost/'));
const pool = new pg.Pool({
  host: url.searchParams.get('host'),
  port: Number(url.searchParams.get('port')),
  user: url.username,
  database: url.pathname.slice(1),
  max: 10,
});

const rows = async (name, text, values) => (await pool.query({ name, text, values })).rows;

const DIGITS = '0123456789abcdefghjkmnpqrstvwxyz';
const shown = (prefix, uuid) => {
  const hex = '00' + uuid.replaceAll('-', '');
  let text = prefix + '_';
  // 130 bits, five at a time: of 34 hexadecimal digits, the first six bits are nothing.
  let value = 0;
  let bits = -6;
  for (const digit of hex) {
    value = ((value << 4) | Number.parseInt(digit, 16)) & 0xfff;
    bits += 4;
    while (bits >= 5) {
      bits -= 5;
      text += DIGITS[(value >> bits) & 31];
    }
  }
  return text;
};
const read = (id) => {
  let value = 0n;
  for (const digit of id.slice(id.lastIndexOf('_') + 1)) value = (value << 5n) | BigInt(DIGITS.indexOf(digit));
  const hex = value.toString(16).padStart(32, '0');
  return [8, 12, 16, 20, 32].map((end, at) => hex.slice([0, 8, 12, 16, 20][at], end)).join('-');
};

const remembered = new Map();
const callerOf = async (authorization = '') => {
  const key = createHash('sha256').update(authorization.replace(/^Bearer /, '')).digest();
  const name = key.toString('base64');
  const known = remembered.get(name);
  if (known && Date.now() - known.at < REMEMBERED_MS) return known.caller;
  const [caller] = await rows(
    'caller',
    `SELECT u.id AS user_id, u.organization_id FROM access_tokens t JOIN users u ON u.id = t.user_id
     WHERE t.secret_hash = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
       AND u.deactivated_at IS NULL`,
    [key],
  );
  if (!caller) throw new Error('unknown token');
  remembered.set(name, { at: Date.now(), caller });
  return caller;
};

const typeDefs = `
  scalar DateTime
  scalar Cursor
  scalar JSON
  type User { id: ID! name: String! }
  type Message { id: ID! role: String! status: String! seq: Int! text: String! createdAt: DateTime! }
  type Messages { nodes: [Message!]! totalCount: Int! }
  type Session {
    id: ID! title: String! status: String! runtime: String! permissionMode: String! messageCount: Int!
    toolExecutionCount: Int! createdAt: DateTime! updatedAt: DateTime! lastEventCursor: Cursor!
    owner: User! messages(first: Int, newestFirst: Boolean): Messages!
  }
  type Sessions { nodes: [Session!]! }
  input LabelInput { name: String! value: String! }
  input SessionFilter { createdBefore: DateTime labels: [LabelInput!] }
  input SendMessageInput { sessionId: ID! text: String! }
  type SendMessagePayload { message: Message! }
  type SessionEvent { seq: Int! type: String! name: String at: DateTime! data: JSON! }
  type Query { session(id: ID!): Session sessions(first: Int, filter: SessionFilter): Sessions! }
  type Mutation { sendMessage(input: SendMessageInput!): SendMessagePayload! }
  type Subscription { sessionEvents(sessionId: ID!, after: Cursor): SessionEvent! }
`;

const COLUMNS = `id, title, status, runtime, permission_mode AS "permissionMode", message_count AS "messageCount",
  tool_execution_count AS "toolExecutionCount", created_at AS "createdAt", updated_at AS "updatedAt", owner_id`;

const usersOf = async (ids) => {
  const found = await rows('users', 'SELECT id, name FROM users WHERE id = ANY($1::uuid[])', [ids]);
  const byId = new Map(found.map((user) => [user.id, user]));
  return ids.map((id) => byId.get(id));
};
const messagesOf = async (ids, first, newestFirst) => {
  const direction = newestFirst ? 'DESC' : 'ASC';
  const found = await rows(
    `messages ${direction}`,
    `SELECT m.* FROM unnest($1::uuid[]) AS s(id) CROSS JOIN LATERAL (
       SELECT session_id, id, role, status, seq, text, created_at AS "createdAt" FROM messages
       WHERE session_id = s.id ORDER BY seq ${direction} LIMIT $2) m`,
    [ids, first],
  );
  const bySession = new Map(ids.map((id) => [id, []]));
  for (const message of found) bySession.get(message.session_id).push(message);
  return ids.map((id) => ({ session_id: id, nodes: bySession.get(id) }));
};
const countsOf = async (ids) => {
  const found = await rows(
    'counts',
    'SELECT session_id, count(*) AS n FROM messages WHERE session_id = ANY($1::uuid[]) GROUP BY 1',
    [ids],
  );
  const bySession = new Map(found.map((row) => [row.session_id, row.n]));
  return ids.map((id) => bySession.get(id) ?? 0);
};

const events = new EventEmitter().setMaxListeners(0);
let seq = 0;
const announce = (sessionId, name, data) => {
  seq += 1;
  events.emit(sessionId, { seq, type: 'CUSTOM', name, at: new Date().toISOString(), data });
};

const resolvers = {
  User: { id: (user) => shown('usr', user.id) },
  Message: { id: (message) => shown('msg', message.id) },
  Session: {
    id: (session) => shown('ses', session.id),
    lastEventCursor: () => Buffer.from(JSON.stringify([seq, {}])).toString('base64url'),
  },
  Query: {
    session: async (_, { id }, { caller }) =>
      (
        await rows('session', `SELECT ${COLUMNS} FROM sessions WHERE id = $1 AND organization_id = $2`, [
          read(id),
          caller.organization_id,
        ])
      )[0],
    sessions: async (_, { first = 25, filter = {} }, { caller }) => {
      const labels = Object.fromEntries((filter.labels ?? []).map(({ name, value }) => [name, value]));
      return {
        nodes: await rows(
          'sessions',
          `SELECT ${COLUMNS} FROM sessions WHERE organization_id = $1 AND status <> 'ARCHIVED' AND created_at < $2
             AND labels @> $3 ORDER BY created_at DESC, id DESC LIMIT $4`,
          [caller.organization_id, filter.createdBefore ?? 'infinity', labels, first],
        ),
      };
    },
  },
  Mutation: {
    sendMessage: (_, { input: { sessionId, text } }) => {
      const id = crypto.randomUUID();
      const data = { messageId: shown('msg', id), runId: shown('run', id), role: 'user', text };
      announce(sessionId, 'quarterdeck.message.sent', data);
      const message = { id, role: 'USER', status: 'COMPLETE', seq, text, createdAt: new Date().toISOString() };
      announce(sessionId, 'quarterdeck.run.queued', { runId: data.runId, number: seq });
      return { message };
    },
  },
};

async function* follow(sessionId) {
  for await (const [event] of on(events, sessionId)) yield { sessionEvents: event };
}
const Subscription = { sessionEvents: { subscribe: (_, { sessionId }) => follow(sessionId) } };

if (kind === 'yoga') {
  const schema = makeExecutableSchema({
    typeDefs,
    resolvers: {
      ...resolvers,
      Subscription,
      Session: {
        ...resolvers.Session,
        owner: (session, _, { owners }) => owners.load(session.owner_id),
        messages: (session, { first = 25, newestFirst = false }, { messages }) =>
          messages(first, newestFirst).load(session.id),
      },
      Messages: { totalCount: (messages, _, { counts }) => counts.load(messages.session_id) },
    },
  });
  const yoga = createYoga({
    schema,
    graphiql: false,
    logging: false,
    context: async ({ request }) => {
      const lists = new Map();
      return {
        caller: await callerOf(request.headers.get('authorization') ?? ''),
        owners: new DataLoader(usersOf),
        counts: new DataLoader(countsOf),
        messages: (first, newestFirst) => {
          const key = `${first} ${newestFirst}`;
          if (!lists.has(key)) lists.set(key, new DataLoader((ids) => messagesOf(ids, first, newestFirst)));
          return lists.get(key);
        },
      };
    },
  });
  const server = createServer((request, response) =>
    request.url === '/readyz' ? response.end('{}') : yoga(request, response),
  );
  useServer(
    { schema, onConnect: async ({ connectionParams }) => Boolean(await callerOf(connectionParams.authorization)) },
    new WebSocketServer({ server, path: '/graphql' }),
  );
  server.listen(Number(port), '127.0.0.1');
} else {
  const app = Fastify();
  app.get('/readyz', async () => ({}));
  app.register(mercurius, {
    schema: typeDefs,
    resolvers,
    jit: 1,
    context: async (request) => ({ caller: await callerOf(request.headers.authorization) }),
    loaders: {
      Session: {
        owner: async (queries) => usersOf(queries.map(({ obj }) => obj.owner_id)),
        messages: async (queries) => {
          const { first = 25, newestFirst = false } = queries[0].params;
          return messagesOf(queries.map(({ obj }) => obj.id), first, newestFirst);
        },
      },
      Messages: { totalCount: async (queries) => countsOf(queries.map(({ obj }) => obj.session_id)) },
    },
  });
  app.listen({ port: Number(port), host: '127.0.0.1' });
}
process.on('SIGTERM', () => process.exit(0));
