// What the peers on Node.js share: the pool, ids as the product writes them, the check of the token, and how to rest.
import { createHash } from 'node:crypto';
import pg from 'pg';

// As long as the product and the peers in Python keep a connection, or remember a caller.
export const KEEP_ALIVE_MS = 75_000;
const REMEMBERED_MS = 1000;

// What PostgreSQL says in its own words: 2025-01-01 00:00:00+00, and counts as numbers.
pg.types.setTypeParser(pg.types.builtins.TIMESTAMPTZ, (text) => text.replace(' ', 'T') + ':00');
pg.types.setTypeParser(pg.types.builtins.INT8, Number);

export const poolOf = (databaseUrl) => {
  const url = new URL(databaseUrl.replace('@/', '@localhost/'));
  return new pg.Pool({
    host: url.searchParams.get('host'),
    port: Number(url.searchParams.get('port')),
    user: url.username,
    database: url.pathname.slice(1),
    options: '-c jit=off',
    max: 10,
  });
};

const DIGITS = '0123456789abcdefghjkmnpqrstvwxyz';
export const shown = (prefix, uuid) => {
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
export const read = (id) => {
  let value = 0n;
  for (const digit of id.slice(id.lastIndexOf('_') + 1)) value = (value << 5n) | BigInt(DIGITS.indexOf(digit));
  const hex = value.toString(16).padStart(32, '0');
  return [8, 12, 16, 20, 32].map((end, at) => hex.slice([0, 8, 12, 16, 20][at], end)).join('-');
};

// Who is behind `Bearer TOKEN`, remembered for as long as the product remembers one.
export const callers = (pool) => {
  const remembered = new Map();
  return async (authorization = '') => {
    const key = createHash('sha256').update(authorization.replace(/^Bearer /, '')).digest();
    const name = key.toString('base64');
    const known = remembered.get(name);
    if (known && Date.now() - known.at < REMEMBERED_MS) return known.caller;
    const found = await pool.query({
      name: 'caller',
      text: `SELECT u.id AS user_id, u.organization_id FROM access_tokens t JOIN users u ON u.id = t.user_id
        WHERE t.secret_hash = $1 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
          AND u.deactivated_at IS NULL`,
      values: [key],
    });
    const caller = found.rows[0];
    if (!caller) throw new Error('unknown token');
    remembered.set(name, { at: Date.now(), caller });
    return caller;
  };
};

process.on('SIGTERM', () => process.exit(0));
// Before its memory is measured, a peer throws away what it does not need (node --expose-gc).
process.on('SIGUSR2', () => gc({ type: 'major', flavor: 'last-resort' }));
