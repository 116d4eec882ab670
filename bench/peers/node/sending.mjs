// Sends a message as bench/peers/bare.py does, which are the product's statements: the message, its run, two events,
// the feed of changed sessions, the audit record, the queue.
import { randomBytes } from 'node:crypto';
import { read, shown } from './common.mjs';

const INSERT_RUN = `
  INSERT INTO runs (id, organization_id, session_id, number, status, segment, started_by_id, queued_at, request_count)
  VALUES ($1, $2, $3, $4, 'QUEUED', 1, $5, $6, 0)`;
const INSERT_MESSAGE = `
  INSERT INTO messages (id, organization_id, session_id, run_id, seq, role, status, reasoning, author_id, text, created_at)
  VALUES ($1, $2, $3, $4, $5, 'USER', 'COMPLETE', false, $6, $7, $8)`;
const INSERT_EVENT = `
  INSERT INTO session_events (session_id, seq, organization_id, at, type, name, run_id, message_id, tool_execution_id,
    approval_id, actor_kind, actor_id, on_behalf_of, data)
  VALUES ($1, $2, $3, $4, 'CUSTOM', $5, $6, $7, NULL, NULL, 'HUMAN', $8, NULL, $9)`;
const INSERT_AUDIT = `
  INSERT INTO audit_records (id, organization_id, at, action, outcome, actor_kind, actor_id, actor_name, on_behalf_of,
    credential_id, ip, user_agent, request_id, target_kind, target_id, target_name, session_id, before, after, details,
    error_code, error_message, digest, seal)
  VALUES ($1, $2, $3, 'message.send', 'SUCCEEDED', 'HUMAN', $4, 'Admin', NULL, NULL, '127.0.0.1', NULL, NULL, 'Session',
    $5, $6, $5, NULL, $7, NULL, NULL, NULL, $8, $9)`;
const NEXT_RUN = `
  SELECT runs.id, runs.organization_id, runs.segment, runs.status FROM runs
  JOIN sessions ON sessions.id = runs.session_id
  WHERE runs.session_id = $1 AND runs.status IN ('QUEUED', 'RUNNING', 'WAITING')
    AND sessions.status NOT IN ('PAUSED', 'TERMINATED', 'ARCHIVED')
  ORDER BY runs.number LIMIT 1`;
const ENQUEUE = `
  SELECT dbos.enqueue_workflow(workflow_name => 'run_segment', queue_name => 'runs',
    named_args => json_build_object('key', $1::text, 'run_id', $2::uuid, 'organization_id', $3::uuid, 'segment', $4::int),
    workflow_id => $1::text, app_version => '1', queue_partition_key => $3::uuid::text, application_name => 'quarterdeck')`;

const newId = () => {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
};

// What both ways tell: the message, and its two events.
const told = (ids, text, seq, number, at) => {
  const event = (place, name, data) => ({ seq: place, type: 'CUSTOM', name: `quarterdeck.${name}`, at, data });
  const shownIds = { messageId: shown('msg', ids.message), runId: shown('run', ids.run) };
  return {
    message: { id: ids.message, role: 'USER', status: 'COMPLETE', seq, text, createdAt: at },
    events: [
      event(seq, 'message.sent', { ...shownIds, role: 'user', text }),
      event(seq + 1, 'run.queued', { runId: shownIds.runId, number }),
    ],
  };
};

export const announced = (places, sessionId, text) => {
  const seq = (places.get(sessionId) ?? 0) + 1;
  places.set(sessionId, seq + 1);
  return told({ message: newId(), run: newId() }, text, seq, seq, new Date().toISOString());
};

const inTransaction = async (pool, statements) => {
  const client = await pool.connect();
  const query = (name, text, values) => client.query({ name, text, values });
  try {
    await query('begin', 'BEGIN');
    const found = await statements(query);
    await query('commit', 'COMMIT');
    return found;
  } catch (error) {
    await client.query('ROLLBACK');
    throw error;
  } finally {
    client.release();
  }
};

export const stored = async (pool, { organization_id: organization, user_id: user }, sessionId, text) => {
  const session = read(sessionId);
  const ids = { message: newId(), run: newId() };
  const at = new Date().toISOString();
  const sent = await inTransaction(pool, async (query) => {
    const found = await query('lock', 'SELECT * FROM sessions WHERE id = $1 AND organization_id = $2 FOR UPDATE', [
      session,
      organization,
    ]);
    const last = await query('last', 'SELECT max(number) AS number FROM runs WHERE session_id = $1', [session]);
    const number = (last.rows[0].number ?? 0) + 1;
    const seq = found.rows[0].last_event_seq + 1;
    const made = told(ids, text, seq, number, at);
    await query('run', INSERT_RUN, [ids.run, organization, session, number, user, at]);
    await query('message', INSERT_MESSAGE, [ids.message, organization, session, ids.run, seq, user, text, at]);
    await query('count', 'UPDATE sessions SET message_count = message_count + 1 WHERE id = $1', [session]);
    await query('again', 'SELECT * FROM messages WHERE id = $1', [ids.message]);
    await query('place', 'UPDATE sessions SET last_event_seq = $2, updated_at = $3 WHERE id = $1', [session, seq + 1, at]);
    for (const [place, event] of made.events.entries()) {
      const message = place === 0 ? ids.message : null;
      const values = [session, event.seq, organization, at, event.name, ids.run, message, user, event.data];
      await query('event', INSERT_EVENT, values);
    }
    await query(
      'change',
      `INSERT INTO session_changes (organization_id, session_id, kind, at) VALUES ($1, $2, 'UPDATED', $3)`,
      [organization, session, at],
    );
    const after = { messageId: shown('msg', ids.message), runId: shown('run', ids.run), characters: text.length };
    const audit = [newId(), organization, at, user, session, found.rows[0].title, after, randomBytes(32), randomBytes(32)];
    await query('audit', INSERT_AUDIT, audit);
    return made;
  });
  const [next] = (await pool.query({ name: 'next', text: NEXT_RUN, values: [session] })).rows;
  await inTransaction(pool, async (query) => {
    await query('enqueue', ENQUEUE, [`${next.id}:${next.segment}`, next.id, next.organization_id, next.segment]);
    await query('notify', `SELECT pg_notify('quarterdeck:runs', '')`);
  });
  return sent;
};
