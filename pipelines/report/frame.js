// In Airflow the page stands in a frame whose sandbox forbids to navigate the window around it. A
// link into Airflow would open a second Airflow inside the frame, so its own router is asked.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-airflow]");
  if (!link || window.parent === window || event.ctrlKey || event.metaKey || event.shiftKey) return;
  // The frame ends with the page around it changing: what comes after must run out there.
  const ask = (url, button) => {
    history.pushState(null, "", url);
    dispatchEvent(new PopStateEvent("popstate"));
    if (!button) return;
    const until = Date.now() + 10000;
    const timer = setInterval(() => {
      const found = document.querySelector(button);
      if (found && location.href === url) found.click();
      if (location.href !== url || found || Date.now() > until) clearInterval(timer);
    }, 100);
  };
  const outside = window.parent.document;
  const script = outside.createElement("script");
  const button = link.dataset.press ? `[data-testid="${link.dataset.press}"]` : null;
  script.textContent = `(${ask})(${JSON.stringify(link.href)}, ${JSON.stringify(button)})`;
  outside.head.append(script);
  script.remove();
  if (window.parent.location.href === link.href) event.preventDefault();
});
