"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const { duration, queries } = JSON.parse(byId("data").textContent);
  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const spans = (rows) => [...rows].map((row) => ({
    row,
    start: Number(row.dataset.s),
    end: row.dataset.e === "" ? duration : Number(row.dataset.e),
    query: Number(row.dataset.q),
    text: row.cells[1].textContent,
    score: row.cells[2] ? row.cells[2].textContent : "",
  }));
  const captions = spans(document.querySelectorAll("#captions tbody tr"));
  const moments = spans(document.querySelectorAll("#moments tbody tr"));
  const objects = spans(document.querySelectorAll("#objects tbody tr"));
  for (const object of objects) object.colour = object.row.style.getPropertyValue("--q");
  const frames = [...document.querySelectorAll("#frames button")].map((button) => ({
    button, t: Number(button.dataset.t), image: button.querySelector("img"), boxes: button.querySelector("svg"),
  }));
  const colour = (number) => `q${number % 8}`;
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const percent = (t) => `${(100 * t) / duration}%`;
  const clock = (t, tenths = true) => {
    const units = Math.round(t * 10);
    const s = Math.floor(units / 10) % 60;
    const m = Math.floor(units / 600) % 60;
    const h = Math.floor(units / 36000);
    const two = (n) => String(n).padStart(2, "0");
    return (h ? `${h}:${two(m)}` : String(m)) + `:${two(s)}` + (tenths ? `.${units % 10}` : "");
  };
  /* Index of the last item that begins at or before t, -1 if none does; items are in order. */
  const lastAt = (items, t, key) => {
    let low = 0;
    let high = items.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (items[middle][key] <= t + 1e-6) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  };
  const covers = (span, t) => span.start <= t + 1e-6 && (t < span.end - 1e-6 || span.start >= span.end);

  /* ---- timeline */
  const scroller = byId("scroller");
  const canvas = byId("canvas");
  const place = (node, span) => {
    node.style.left = percent(span.start);
    node.style.width = percent(Math.max(0, Math.min(span.end, duration) - span.start));
    return node;
  };
  /* The same words again and again are one block. */
  const blocks = [];
  for (const caption of captions) {
    let block = blocks[blocks.length - 1];
    if (block && block.text === caption.text && Math.abs(caption.start - block.end) < 0.05) {
      block.end = caption.end;
    } else {
      block = { text: caption.text, start: caption.start, end: caption.end, node: element("div", "block", caption.text) };
      block.node.title = caption.text;
      blocks.push(block);
    }
    caption.block = block.node;
  }
  byId("lane-captions").append(...blocks.map((block) => place(block.node, block)));
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  /* One scale for all curves: a query that fits nothing must look flat beside one that fits. */
  let low = Infinity;
  let high = -Infinity;
  for (const query of queries) for (const [, value] of query.curve) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const drawCurve = (lane, curve) => {
    const range = high - low || 1;
    const points = curve.map(([t, v]) => `${((1000 * t) / duration).toFixed(2)},${(92 - (80 * (v - low)) / range).toFixed(2)}`);
    const picture = svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
    const ends = [(1000 * curve[0][0]) / duration, (1000 * curve[curve.length - 1][0]) / duration];
    picture.append(
      svg("path", { class: "area", d: `M${ends[0]},100L${points.join("L")}L${ends[1]},100Z` }),
      svg("path", { class: "line", d: `M${points.join("L")}` }),
    );
    lane.append(picture);
  };
  queries.forEach((query, number) => {
    const lane = element("div", `lane ${colour(number)}`);
    if (query.curve.length) drawCurve(lane, query.curve);
    for (const moment of moments.filter((m) => m.query === number)) {
      moment.band = place(element("div", "band"), moment);
      lane.append(moment.band);
    }
    const name = element("span", "name");
    name.append(element("i", "dot"), query.name);
    name.title = query.name;
    lane.append(name);
    byId("lanes").append(lane);
  });

  /* A bar for each object, in the first row that is free when it appears. */
  const rowHeight = 12;
  const mostRows = 24;
  const rowEnds = [];
  const addObjects = () => {
    const lane = byId("lane-objects");
    for (const object of objects) {
      let row = rowEnds.findIndex((end) => end <= object.start);
      if (row < 0) row = rowEnds.length < mostRows ? rowEnds.length : rowEnds.indexOf(Math.min(...rowEnds));
      rowEnds[row] = Math.max(object.end, rowEnds[row] || 0);
      object.bar = place(element("div", "bar-object"), object);
      object.bar.style.top = `${row * rowHeight + 3}px`;
      object.bar.style.setProperty("--q", object.colour);
      object.bar.title = object.score ? `${object.text}: ${object.score}` : object.text;
      lane.append(object.bar);
    }
    lane.style.height = `${rowEnds.length * rowHeight + 5}px`;
    lane.hidden = objects.length === 0;
  };
  addObjects();

  let zoom = 1;
  const ruler = byId("ruler");
  const film = byId("film");
  if (!frames.length) film.hidden = true;
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const drawRuler = (width, from, to) => {
    const step = steps.find((s) => (s * width) / duration >= 72) || steps[steps.length - 1];
    const ticks = [];
    for (let i = Math.floor(from / step); i * step <= Math.min(to, duration); i++) {
      const tick = element("span", "", clock(i * step, step < 1));
      tick.style.left = percent(i * step);
      ticks.push(tick);
    }
    ruler.replaceChildren(...ticks);
  };
  const drawFilm = (width, left, right) => {
    const picture = frames[0].image;
    const aspect = Number(picture.getAttribute("width")) / Number(picture.getAttribute("height"));
    const step = Math.max(32, Math.round(56 * aspect));
    const shown = [];
    for (let i = Math.max(0, Math.floor(left / step)); i * step < Math.min(right, width); i++) {
      const t = ((i * step) / width) * duration;
      const index = Math.max(0, lastAt(frames, t, "t"));
      shown.push({ i, source: frames[index].image.src });
    }
    while (film.children.length > shown.length) film.lastChild.remove();
    while (film.children.length < shown.length) {
      const image = element("img");
      image.alt = "";
      film.append(image);
    }
    shown.forEach(({ i, source }, n) => {
      const image = film.children[n];
      if (image.src !== source) image.src = source;
      image.style.left = `${i * step}px`;
      image.style.width = `${step}px`;
    });
  };
  const draw = () => {
    const view = scroller.clientWidth;
    const width = view * zoom;
    const left = scroller.scrollLeft;
    drawRuler(width, (left / width) * duration, ((left + view) / width) * duration);
    if (frames.length) drawFilm(width, left, left + view);
  };
  let drawing = 0;
  const redraw = () => {
    cancelAnimationFrame(drawing);
    drawing = requestAnimationFrame(draw);
  };
  const setZoom = (wanted, anchor) => {
    const view = scroller.clientWidth;
    const t = (scroller.scrollLeft + anchor) / (view * zoom);
    zoom = clamp(wanted, 1, clamp((200 * duration) / view, 1, 5e6 / view));
    canvas.style.width = `${100 * zoom}%`;
    for (const block of blocks) {
      block.node.classList.toggle("thin", ((block.end - block.start) / duration) * view * zoom < 48);
    }
    scroller.scrollLeft = t * view * zoom - anchor;
    redraw();
  };

  /* ---- the selected moment */
  const now = { t: 0 };
  let lit = [];
  const reveal = (node) => {
    const box = node.closest(".scroll");
    const head = 34;
    const top = node.getBoundingClientRect().top - box.getBoundingClientRect().top;
    if (top < head) box.scrollTop += top - head;
    else if (top + node.offsetHeight > box.clientHeight) box.scrollTop += top + node.offsetHeight - box.clientHeight + 8;
  };
  const highlight = (nodes) => {
    for (const node of lit) node.classList.remove("on");
    lit = nodes.filter(Boolean);
    for (const node of lit) node.classList.add("on");
  };
  /* Key frames may lie far apart: rather one that the caption covers than the one just before it. */
  const frameFor = (t, caption) => {
    const at = lastAt(frames, t, "t");
    const near = [frames[at], frames[at + 1]].filter(Boolean);
    near.sort((a, b) => Math.abs(a.t - t) - Math.abs(b.t - t));
    return near.find((frame) => caption && covers(caption, frame.t)) || near[0];
  };
  const select = (wanted) => {
    const t = clamp(wanted, 0, duration);
    now.t = t;
    const caption = captions.filter((c) => covers(c, t)).pop() || (t >= duration ? captions[captions.length - 1] : undefined);
    const active = moments.filter((m) => covers(m, t));
    const frame = frameFor(t, caption);
    const present = objects.filter((o) => covers(o, t));
    const nodes = [...active.flatMap((m) => [m.row, m.band]), ...present.flatMap((o) => [o.row, o.bar])];
    if (caption) nodes.push(caption.row, caption.block);
    if (frame) nodes.push(frame.button);
    highlight(nodes);
    for (const node of [caption && caption.row, active[0] && active[0].row, present[0] && present[0].row, frame && frame.button]) if (node) reveal(node);
    if (frame) {
      byId("now-image").src = frame.image.src;
      byId("now-image").alt = frame.image.alt;
      byId("now-boxes").replaceChildren(...(frame.boxes ? [frame.boxes.cloneNode(true)] : []));
      byId("now-frame").textContent = clock(frame.t);
    }
    byId("now-time").textContent = clock(t);
    byId("now-caption").textContent = caption ? caption.text : "No caption here";
    byId("now-caption").classList.toggle("none", !caption);
    byId("now-queries").replaceChildren(...active.map((m) => {
      const chip = element("li");
      chip.append(element("i", `dot ${colour(m.query)}`), m.score ? `${m.text}  ${m.score}` : m.text);
      return chip;
    }));
    /* Those on the picture come first. */
    const drawn = new Set([...byId("now-boxes").querySelectorAll("rect")].map((box) => box.style.getPropertyValue("--q")));
    present.sort((a, b) => drawn.has(b.colour) - drawn.has(a.colour));
    byId("now-objects").replaceChildren(...present.slice(0, 6).map((o) => {
      const line = element("li");
      line.style.setProperty("--q", o.colour);
      line.append(element("i", "dot"), o.score ? `${o.text}: ${o.score}` : o.text);
      return line;
    }));
    byId("playhead").style.left = `clamp(5px, ${percent(t)}, calc(100% - 5px))`;
    scroller.setAttribute("aria-valuenow", t.toFixed(1));
    scroller.setAttribute("aria-valuetext", caption ? `${clock(t)}, ${caption.text}` : clock(t));
    const x = (t / duration) * scroller.clientWidth * zoom;
    if (x < scroller.scrollLeft || x > scroller.scrollLeft + scroller.clientWidth) {
      scroller.scrollLeft = x - scroller.clientWidth / 2;
    }
  };
  const pick = (t) => {
    select(t);
    history.replaceState(null, "", `#t=${now.t.toFixed(1)}`);
  };
  const stepCaption = (direction) => {
    const at = lastAt(captions, now.t, "start");
    const inside = direction < 0 && at >= 0 && now.t > captions[at].start + 1e-6;
    const next = captions[inside ? at : at + direction];
    if (next) pick(next.start);
  };

  for (const span of [...captions, ...moments, ...objects]) span.row.addEventListener("click", () => pick(span.start));
  for (const frame of frames) frame.button.addEventListener("click", () => pick(frame.t));
  const timeAt = (event) => ((event.clientX - canvas.getBoundingClientRect().left) / canvas.clientWidth) * duration;
  let scrubbing = false;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" || event.button) return;
    scrubbing = true;
    canvas.setPointerCapture(event.pointerId);
    pick(timeAt(event));
  });
  canvas.addEventListener("pointermove", (event) => { if (scrubbing) pick(timeAt(event)); });
  canvas.addEventListener("pointerup", () => { scrubbing = false; });
  canvas.addEventListener("pointercancel", () => { scrubbing = false; });
  canvas.addEventListener("click", (event) => pick(timeAt(event)));

  /* ---- zoom */
  const middle = () => {
    const x = (now.t / duration) * scroller.clientWidth * zoom - scroller.scrollLeft;
    return x >= 0 && x <= scroller.clientWidth ? x : scroller.clientWidth / 2;
  };
  byId("zoom-in").addEventListener("click", () => setZoom(zoom * 1.6, middle()));
  byId("zoom-out").addEventListener("click", () => setZoom(zoom / 1.6, middle()));
  byId("zoom-fit").addEventListener("click", () => setZoom(1, 0));
  scroller.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    setZoom(zoom * Math.exp(-event.deltaY / 200), event.clientX - scroller.getBoundingClientRect().left);
  }, { passive: false });
  let pinch = null;
  const apart = (touches) => Math.abs(touches[0].clientX - touches[1].clientX) || 1;
  scroller.addEventListener("touchstart", (event) => {
    pinch = event.touches.length === 2 ? { apart: apart(event.touches), zoom } : null;
  }, { passive: true });
  scroller.addEventListener("touchmove", (event) => {
    if (!pinch || event.touches.length !== 2) return;
    event.preventDefault();
    const centre = (event.touches[0].clientX + event.touches[1].clientX) / 2;
    setZoom((pinch.zoom * apart(event.touches)) / pinch.apart, centre - scroller.getBoundingClientRect().left);
  }, { passive: false });
  scroller.addEventListener("scroll", redraw, { passive: true });
  addEventListener("resize", () => setZoom(zoom, 0));

  scroller.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowRight: () => (event.shiftKey ? stepCaption(1) : pick(now.t + 1)),
      ArrowLeft: () => (event.shiftKey ? stepCaption(-1) : pick(now.t - 1)),
      Home: () => pick(0),
      End: () => pick(duration),
      "+": () => setZoom(zoom * 1.6, middle()),
      "=": () => setZoom(zoom * 1.6, middle()),
      "-": () => setZoom(zoom / 1.6, middle()),
      0: () => setZoom(1, 0),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  /* ---- finding and theme */
  const find = byId("find");
  find.hidden = captions.length === 0;
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    for (const caption of captions) caption.row.hidden = !caption.text.toLowerCase().includes(wanted);
  });
  const theme = byId("theme");
  const dark = () => (document.documentElement.dataset.theme
    || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { theme.textContent = dark() ? "Light" : "Dark"; };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    nameTheme();
  });
  nameTheme();

  byId("now").hidden = false;
  byId("timeline").hidden = false;
  scroller.setAttribute("aria-valuemin", "0");
  scroller.setAttribute("aria-valuemax", duration.toFixed(1));
  setZoom(1, 0);
  const linked = /^#t=([\d.]+)$/.exec(location.hash);
  select(linked ? Number(linked[1]) : captions.length ? captions[0].start : 0);
})();
