import { useEffect, useRef, useSyncExternalStore } from "react";
import { live } from "./live.js";

const STATUS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Connection lost, reconnecting",
  ended: "Ended by the server",
  stopped: "Stopped",
  failed: "Failed",
};

/** What the running subscription brought, oldest first, one line an event that opens to the whole of it. */
export function LivePanel() {
  const { status, operation, events, dropped, error } = useSyncExternalStore(live.listen, live.snapshot);
  const list = useRef(null);
  const following = useRef(true);

  useEffect(() => {
    if (following.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [events]);

  if (status === "idle") return null;
  const running = ["connecting", "live", "reconnecting"].includes(status);
  const noteScroll = ({ currentTarget: box }) => {
    following.current = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  };
  return (
    <section className="live-panel" aria-label="Live events">
      <header>
        <span className={`live-status ${status}`}>{STATUS[status]}</span>
        <span className="live-operation">{operation}</span>
        <span className="live-count">{countOf(events.length + dropped)}</span>
        {running ? <button onClick={live.stop}>Stop</button> : <button onClick={live.close}>Close</button>}
      </header>
      {error && <p className="live-error">{error}</p>}
      <ol ref={list} onScroll={noteScroll} tabIndex={0}>
        {events.map(({ number, result }) => (
          <Event key={number} number={number} result={result} />
        ))}
      </ol>
    </section>
  );
}

function countOf(count) {
  return count === 1 ? "1 event" : `${count} events`;
}

function Event({ number, result }) {
  const event = Object.values(result.data ?? {})[0] ?? {};
  return (
    <li>
      <details>
        <summary>
          <span className="live-number">{event.seq ?? number}</span>
          <span className={result.errors ? "live-kind live-error" : "live-kind"}>
            {result.errors ? "error" : (event.name ?? event.type)}
          </span>
          <span className="live-gist">{gistOf(event, result.errors)}</span>
        </summary>
        <pre>{JSON.stringify(result, null, 2)}</pre>
      </details>
    </li>
  );
}

/** An event in a few words: text that was written, else the event's body, else whatever was asked for. */
function gistOf(event, errors) {
  if (errors) return errors.map((error) => error.message).join(" ");
  return event.delta ?? JSON.stringify(event.data ?? event);
}
