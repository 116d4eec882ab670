// Goes on without a click for whoever opened the link. A page that the browser only prepares in the background
// must not use the link up, so it waits until it is really looked at.
const form = document.querySelector("form");
const go = () => form.requestSubmit();

if (document.prerendering) {
  document.addEventListener("prerenderingchange", go, { once: true });
} else if (document.visibilityState === "visible") {
  go();
} else {
  document.addEventListener("visibilitychange", go, { once: true });
}
