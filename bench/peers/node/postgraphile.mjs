// PostGraphile 5 with its amber preset: node postgraphile.mjs PORT DATABASE_URL
//
// It makes its schema of the tables. Added is what the other peers do too: the check of the token, the restriction to
// the caller's organisation, the filters of the documents. It knows nothing of the product's ids: its own documents, and
// what makes its answers comparable, are in bench/peers/postgraphile.py.
import { createServer } from 'node:http';
import { postgraphile } from 'postgraphile';
import { TYPES } from 'postgraphile/@dataplan/pg';
import { makePgService } from 'postgraphile/adaptors/pg';
import { context } from 'postgraphile/grafast';
import { grafserv } from 'postgraphile/grafserv/node';
import { PostGraphileAmberPreset } from 'postgraphile/presets/amber';
import { addPgTableCondition, wrapPlans } from 'postgraphile/utils';
import { callers, KEEP_ALIVE_MS, poolOf } from './common.mjs';

const [port, databaseUrl] = process.argv.slice(2);
const pool = poolOf(databaseUrl);
const callerOf = callers(pool);

const onlyOfTheCaller = wrapPlans(({ sql, pgResources }) => {
  const restrict = ($sessions) => {
    const $organization = context().get('caller').get('organization_id');
    $sessions.where(sql`${$sessions}.organization_id = ${$sessions.placeholder($organization, TYPES.uuid)}`);
  };
  return {
    Query: {
      allSessions(plan) {
        const $connection = plan();
        const $sessions = $connection.getSubplan();
        restrict($sessions);
        $sessions.where(sql`${$sessions}.status <> 'ARCHIVED'`);
        return $connection;
      },
      sessionByRowId(_, $root, { $rowId }) {
        const $sessions = pgResources.sessions.find({ id: $rowId });
        restrict($sessions);
        return $sessions.single();
      },
    },
  };
});

const condition = (name, type, where) =>
  addPgTableCondition({ schemaName: 'public', tableName: 'sessions' }, name, ({ getInputTypeByName, sql }) => ({
    type: getInputTypeByName(type),
    apply: ($where, value) => $where.where(where(sql, $where.alias, value)),
  }));

const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS });
const instance = postgraphile({
  extends: [PostGraphileAmberPreset],
  plugins: [
    onlyOfTheCaller,
    condition('createdBefore', 'Datetime', (sql, t, v) => sql`${t}.created_at < ${sql.value(v)}::timestamptz`),
    condition('labelled', 'JSON', (sql, t, v) => sql`${t}.labels @> ${sql.value(JSON.stringify(v))}::jsonb`),
  ],
  pgServices: [makePgService({ pool, schemas: ['public'] })],
  grafast: { context: async ({ node }) => ({ caller: await callerOf(node.req.headers.authorization) }) },
  grafserv: { graphqlPath: '/graphql', graphiql: false, websockets: false },
});
await instance.getSchema();
const answer = instance.createServ(grafserv).createHandler();
server.on('request', (request, response) =>
  request.url === '/readyz' ? response.end('{}') : answer(request, response),
);
server.listen(Number(port), '127.0.0.1');
