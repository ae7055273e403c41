// A drawing for a product that has no picture: the outline of its kind in its own colour, both read off its words.
// It knows nothing of the page; `drawn(item, title, frame)` gives an SVG and tells the frame its colour.

const SVG = "http://www.w3.org/2000/svg";

// Names of colours, longest first where one holds another.
const COLOURS = Object.entries({
  "washed black": "#3a3b3d", "light blue": "#a9c4dd", "sky blue": "#9cc5e3", "mid blue": "#5b82ad", "navy blue": "#23304f", "dark blue": "#24375c",
  "rose gold": "#c58f80", "butter yellow": "#f0dc93", "forest green": "#2d4f3a", "dark green": "#2a4a38", "grey marl": "#a7a9ab", "off white": "#f2eee4",
  black: "#26262a", white: "#f7f6f2", ivory: "#f3eddb", ecru: "#e6dcc4", cream: "#f1e7cf", natural: "#dccdb0", oatmeal: "#d8cbb3", sand: "#d9c4a0",
  stone: "#bdb4a4", beige: "#d8c7a8", camel: "#c19a66", honey: "#d39b3f", tan: "#b98451", taupe: "#94877a", brown: "#75503a", chocolate: "#53382b",
  tortoise: "#7b4f2e", rust: "#b0552f", terracotta: "#c26b4c", orange: "#dd8140", coral: "#ef8370", red: "#bb3438", burgundy: "#6d2233", wine: "#6b2338",
  pink: "#e0a0b1", blush: "#e8bdb7", rose: "#d79aa0", fuchsia: "#bf3f83", plum: "#61385a", purple: "#6c4a8c", lilac: "#bda8d2", lavender: "#b9add8",
  indigo: "#38416f", navy: "#26314f", blue: "#3f6ca8", teal: "#2c7375", turquoise: "#4fb0ad", mint: "#a8d5bd", sage: "#a3b39a", moss: "#707a46",
  olive: "#737145", khaki: "#8f8660", green: "#48804f", mustard: "#c9982f", yellow: "#e5c650", champagne: "#e4d1b0", gold: "#c8a24d",
  silver: "#bcc1c6", charcoal: "#44484d", grey: "#8f9397", gray: "#8f9397", bronze: "#8f6a3f", copper: "#b0714a",
});

// Kinds by their words: the last word of a title that names one decides. [words, filled outline, lines upon it]
const COAT = "M45 16 54 13h12l9 3 17 14 9 52-12 3-7-27v49H38V61l-7 27-12-3 9-52z";
const TOP = "M43 25 52 21q8 9 16 0l9 4 22 15-10 19-9-5v45H40V54l-9 5-10-19z";
const KNIT = "M46 23q14 9 28 0l14 9 14 53-13 4-9-30v40H40V59l-9 30-13-4 14-53z";
const KINDS = [
  ["coat jacket parka blazer trench overcoat anorak trucker puffer gilet bomber mantel jacke", COAT, "M60 26v84M54 13l-5 22 11 8 11-8-5-22M46 78h-6M80 78h-6"],
  ["jumper sweater cardigan knit knitwear hoodie sweatshirt pullover pulli strick", KNIT, "M40 91h40M40 96h40M46 23q14 17 28 0"],
  ["shirt blouse oxford overshirt polo hemd bluse", TOP, "M60 29v70M52 21l-3 10 11 2 11-2-3-10"],
  ["tee t-shirt top tank camisole vest henley bodysuit", TOP, "M52 21q8 15 16 0"],
  ["dress gown kleid", "M47 14h4q1 19 9 21 8-2 9-21h4v15l-1 15-6 12 24 50q-30 9-60 0l24-50-6-12-1-15z", "M54 56h12"],
  ["skirt rock", "M43 26h34l22 68q-39 12-78 0z", "M42 33h36M53 34l-8 64M67 34l8 64"],
  ["trouser pant jean chino short legging jogger hose", "M41 14h38l9 92H69L60 46l-9 60H32z", "M40 22h40M60 23v22M45 23q0 10-6 12M75 23q0 10 6 12"],
  ["boot stiefel", "M42 16h28v44q2 11 20 17 11 4 11 15v4H42q-5-38 0-80z", "M40 96h61v7H84l-4-3H56v7H40zM70 60q-8 2-12 8"],
  ["sneaker trainer runner shoe loafer brogue derby mule pump heel schuh", "M18 54q12 6 20-5l8-7q13 20 38 25 19 4 19 17v3H18z", "M17 87h87q1 9-7 9H24q-7 0-7-9zM47 57l9-6M53 63l9-6M60 68l8-6"],
  ["sandal espadrille slide flip-flop", "M18 84q3-13 20-11 40 4 58 3 10 4 8 13-2 6-12 6H28q-11 0-10-11z", "M36 74q9-31 32 2M72 77q9-22 22 0M68 76q-4-26-24-26"],
  ["bag tote backpack clutch satchel purse crossbody rucksack tasche", "M29 48h62l7 56H22z", "M43 60V46q0-26 17-26t17 26v14"],
  ["beanie mütze", "M30 76q0-46 30-46t30 46zM26 74h68v20H26z", "M60 31v43M45 36q-5 18-4 38M75 36q5 18 4 38"],
  ["hat cap bucket fedora hut", "M36 70q0-38 24-38t24 38q20 3 22 12-18 14-46 14T14 82q2-9 22-12z", "M36 70q24 10 48 0"],
  ["scarf shawl wrap stole schal", "M44 18q16 9 32 0l5 17q-7 9-15 12l9 56H52l-2-52q-8-5-11-16z", "M54 103v7M60 103v7M66 103v7M72 103v7M50 51q8 4 16-4"],
  ["sunglasses glasses brille", "M17 48h40q0 31-20 31T17 48zM63 48h40q0 31-20 31T63 48z", "M57 53q3-4 6 0M17 50l-6-6M103 50l6-6"],
  ["belt gürtel", "M10 50h100v20H10z", "M40 42h32v36H40zM56 60h18M84 60h1M93 60h1M102 60h1"],
  ["ring necklace earring bracelet pendant hoop jewellery chain kette", "M60 72l13 13-13 19-13-19z", "M28 18q2 46 32 54 30-8 32-54M47 85h26"],
].map(([words, outline, lines]) => [words.split(" "), outline, lines]);

export function drawn(item, title, frame) {
  const words = `${title} ${item.color || ""} ${item.category || ""}`.toLowerCase();
  const colour = item.color && colourIn(item.color.toLowerCase()) || colourIn(words) || `hsl(${hash(String(item.item_id)) % 360} 22% 58%)`;
  frame.style.setProperty("--own", colour);
  const svg = element("svg", { viewBox: "0 0 120 120" });
  const kind = kindIn(words);
  if (kind) svg.append(element("path", { class: "outline", d: kind[1] }), element("path", { class: "lines", d: kind[2] }));
  else {
    const letter = element("text", { x: 60, y: 62 });
    letter.textContent = (/\p{L}|\p{N}/u.exec(title)?.[0] || "·").toUpperCase();
    svg.append(letter);
  }
  return svg;
}

function colourIn(words) {
  return COLOURS.find(([colour]) => new RegExp(`(?<!\\p{L})${colour}(?!\\p{L})`, "u").test(words))?.[1];
}

function kindIn(words) {
  let [best, last] = [null, -1];
  for (const kind of KINDS) {
    for (const word of kind[0]) {
      const at = Math.max(...["", "s", "es"].map((end) => lastWord(words, word + end)));
      if (at > last) [best, last] = [kind, at];
    }
  }
  return best;
}

function lastWord(text, word) { // where the word stands last, on its own; -1 where it does not
  for (let at = text.lastIndexOf(word); at >= 0; at = at ? text.lastIndexOf(word, at - 1) : -1) {
    if (!/\p{L}/u.test(text[at - 1] || " ") && !/\p{L}/u.test(text[at + word.length] || " ")) return at;
  }
  return -1;
}

function hash(text) { return [...text].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) >>> 0, 7); }

function element(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
