// Draws media/icon.png, so that the icon can be changed in a text editor: lines of code, a cursor, and grey text after it.
import { writeFile } from "node:fs/promises";
import { crc32, deflateSync } from "node:zlib";

const SIZE = 128;
const FINE = 4; // samples per pixel and direction: soft edges

/** Rounded bars: x, y, width, height, radius, colour. Later ones lie above earlier ones. */
const SHAPES = [
  [4, 4, 120, 120, 26, [24, 32, 48]],
  [24, 30, 44, 10, 5, [122, 162, 247]],
  [74, 30, 30, 10, 5, [158, 206, 106]],
  [36, 50, 52, 10, 5, [192, 202, 245]],
  [36, 70, 22, 10, 5, [192, 202, 245]],
  [62, 64, 5, 22, 2, [255, 199, 119]],
  [72, 70, 32, 10, 5, [98, 108, 138]],
  [36, 90, 46, 10, 5, [98, 108, 138]],
];

function inside(px, py, [x, y, width, height, radius]) {
  const dx = Math.max(x + radius - px, px - (x + width - radius), 0);
  const dy = Math.max(y + radius - py, py - (y + height - radius), 0);
  return dx * dx + dy * dy <= radius * radius;
}

function pixel(column, row) {
  const sum = [0, 0, 0, 0];
  for (let sample = 0; sample < FINE * FINE; sample += 1) {
    const x = column + ((sample % FINE) + 0.5) / FINE;
    const y = row + (Math.floor(sample / FINE) + 0.5) / FINE;
    const shape = SHAPES.findLast((each) => inside(x, y, each));
    if (shape) {
      shape[5].forEach((value, index) => (sum[index] += value));
      sum[3] += 1;
    }
  }
  const colour = sum.slice(0, 3).map((value) => (sum[3] ? Math.round(value / sum[3]) : 0));
  return [...colour, Math.round((255 * sum[3]) / (FINE * FINE))];
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
  const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}

const header = Buffer.alloc(13);
header.writeUInt32BE(SIZE, 0);
header.writeUInt32BE(SIZE, 4);
header.set([8, 6, 0, 0, 0], 8); // 8 bits per channel, RGBA
const numbers = [...Array(SIZE).keys()];
const rows = numbers.map((row) => Buffer.from([0, ...numbers.flatMap((column) => pixel(column, row))]));
const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const image = [
  chunk("IHDR", header),
  chunk("IDAT", deflateSync(Buffer.concat(rows), { level: 9 })),
  chunk("IEND", Buffer.alloc(0)),
];
await writeFile(new URL("../media/icon.png", import.meta.url), Buffer.concat([signature, ...image]));
