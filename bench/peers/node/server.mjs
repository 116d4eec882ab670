// The documents of bench/cases.py, and the stream, by the usual Node.js servers.
//
//   node server.mjs yoga PORT DATABASE_URL         graphql-yoga with data loaders; graphql-ws for sockets
//   node server.mjs mercurius PORT DATABASE_URL    mercurius on fastify with its JIT, its loaders and its subscriptions
//
// Both check the same tokens as the product, remembered as long, and send a message by the same statements. With a
// fourth argument, `announce`, sendMessage writes nothing: it only tells the subscribers.
import { EventEmitter, on } from 'node:events';
import { createServer } from 'node:http';
import { makeExecutableSchema } from '@graphql-tools/schema';
import DataLoader from 'dataloader';
import Fastify from 'fastify';
import { useServer } from 'graphql-ws/use/ws';
import { createYoga } from 'graphql-yoga';
import mercurius from 'mercurius';
import { WebSocketServer } from 'ws';
import { callers, KEEP_ALIVE_MS, poolOf, read, shown } from './common.mjs';
import { announced, stored } from './sending.mjs';

const [kind, port, databaseUrl, mode] = process.argv.slice(2);
const announcing = mode === 'announce';
const pool = poolOf(databaseUrl);
const callerOf = callers(pool);
const rows = async (name, text, values) => (await pool.query({ name, text, values })).rows;

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
  tool_execution_count AS "toolExecutionCount", created_at AS "createdAt", updated_at AS "updatedAt", owner_id,
  last_event_seq`;

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

// Where an announced session's log would end. No event of these peers can be had again: the cursor only says its place.
const places = new Map();
const placeOf = (session) => (announcing ? (places.get(shown('ses', session.id)) ?? 0) : session.last_event_seq);

const resolvers = {
  User: { id: (user) => shown('usr', user.id) },
  Message: { id: (message) => shown('msg', message.id) },
  Session: {
    id: (session) => shown('ses', session.id),
    lastEventCursor: (session) => Buffer.from(JSON.stringify([placeOf(session), {}])).toString('base64url'),
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
    sendMessage: async (_, { input: { sessionId, text } }, { caller }) => {
      const sent = announcing ? announced(places, sessionId, text) : await stored(pool, caller, sessionId, text);
      for (const event of sent.events) await publish(sessionId, { sessionEvents: event });
      return { message: sent.message };
    },
  },
};

let publish;
if (kind === 'yoga') {
  const events = new EventEmitter().setMaxListeners(0);
  publish = (sessionId, payload) => events.emit(sessionId, payload);
  const schema = makeExecutableSchema({
    typeDefs,
    resolvers: {
      ...resolvers,
      Subscription: {
        sessionEvents: {
          subscribe: (_, { sessionId }) => on(events, sessionId),
          resolve: ([payload]) => payload.sessionEvents,
        },
      },
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
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) =>
    request.url === '/readyz' ? response.end('{}') : yoga(request, response),
  );
  useServer(
    { schema, onConnect: async ({ connectionParams }) => Boolean(await callerOf(connectionParams.authorization)) },
    new WebSocketServer({ server, path: '/graphql' }),
  );
  server.listen(Number(port), '127.0.0.1');
} else {
  const app = Fastify({ keepAliveTimeout: KEEP_ALIVE_MS });
  app.get('/readyz', async () => ({}));
  app.register(mercurius, {
    schema: typeDefs,
    resolvers: {
      ...resolvers,
      Subscription: { sessionEvents: { subscribe: (_, { sessionId }, { pubsub }) => pubsub.subscribe(sessionId) } },
    },
    subscription: { onConnect: async ({ payload }) => ({ caller: await callerOf(payload.authorization) }) },
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
  publish = (topic, payload) => app.graphql.pubsub.publish({ topic, payload });
  app.listen({ port: Number(port), host: '127.0.0.1' });
}
