"use strict";
(() => {
  const root = document.documentElement, find = (id) => document.getElementById(id);
  const claims = [...document.querySelectorAll("article.claim")];
  const buttons = [...document.querySelectorAll("[data-filter]")];
  const chosen = new Set();

  // Theme: the system's until the reader chooses; the choice is kept where the browser lets a file keep it.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = find("theme");
  const keep = (value) => { try { localStorage.setItem("deqproof-theme", value); } catch { /* private mode */ } };
  const kept = () => { try { return localStorage.getItem("deqproof-theme"); } catch { return null; } };
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const label = () => { button.textContent = dark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`); };
  if (kept()) root.dataset.theme = kept();
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; keep(root.dataset.theme); label(); });
  system.addEventListener("change", label);
  label();

  // Filter by verdict, topic and words; all words must occur.
  const form = find("filters"), search = find("search"), topic = find("topic");
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const claim of claims) {
      const fits = (!chosen.size || chosen.has(claim.dataset.verdict)) && (!topic.value || claim.dataset.topic === topic.value)
        && words.every((word) => claim.dataset.text.includes(word));
      claim.hidden = !fits;
      shown += fits;
    }
    for (const section of document.querySelectorAll("section.topic"))
      section.hidden = !section.querySelector("article.claim:not([hidden])");
    const filtered = shown < claims.length;
    root.classList.toggle("filtered", filtered);
    find("shown").textContent = filtered ? `${shown} of ${claims.length} claims` : "";
    find("none").hidden = shown > 0 || !claims.length;
  };
  const reset = () => { chosen.clear(); search.value = ""; topic.value = ""; for (const b of buttons) b.setAttribute("aria-pressed", "false"); apply(); };
  form.hidden = !claims.length;
  form.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", apply);
  topic.addEventListener("change", apply);
  find("reset").addEventListener("click", reset);
  for (const b of buttons) b.addEventListener("click", () => {
    const on = !chosen.delete(b.dataset.filter);
    if (on) chosen.add(b.dataset.filter);
    b.setAttribute("aria-pressed", String(on));
    apply();
  });
  const brief = find("brief");
  brief.addEventListener("click", () => {
    const on = root.classList.toggle("brief");
    brief.setAttribute("aria-pressed", String(on));
    brief.textContent = on ? "Show evidence" : "Hide evidence";
  });

  // A displayed formula that is wider than its card shrinks, down to three quarters; beyond that it scrolls.
  const fit = () => {
    for (const formula of document.querySelectorAll('math[display="block"]')) {
      formula.style.fontSize = "";
      const ratio = formula.clientWidth / formula.scrollWidth;
      if (ratio < 1) formula.style.fontSize = `${Math.max(0.8, 1.06 * ratio * 0.98)}em`;
    }
  };
  fit();
  addEventListener("resize", fit);

  // A link to a claim that a filter hides shows everything again.
  const reveal = () => {
    const target = find(decodeURIComponent(location.hash.slice(1)));
    if (target && target.closest("[hidden]")) { reset(); target.scrollIntoView(); }
  };
  addEventListener("hashchange", reveal);
  addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("details.reading")) d.open = true; });
})();
