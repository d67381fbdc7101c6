// What the server tells; the same as unispector/serving/page_routes/shown.py.

export type Box = [number, number, number, number]; // left, top, width, height in pixels of the image
export type Polygon = number[]; // x0, y0, x1, y1, ...

export interface Start {
  program: string;
  opened: boolean;
  fixed: boolean;
  home: string;
  tile: number;
  overlap: number;
  lowest: number;
  exports: string[];
}

export interface SessionClass {
  name: string;
  colour: string;
  threshold: number;
  default: number;
  marks: number;
  negatives: number;
  images: number;
  prompted: boolean;
  promise: string;
  proved: boolean;
}

export interface Mark {
  id: string;
  image: string;
  label: string;
  box: Box;
  hw: [number, number];
  outlines: Polygon[];
  negative: boolean;
  origin: 'drawn' | 'accepted' | 'rejected';
}

export interface Advice {
  label: string;
  image: string | null;
  text: string;
  drop: boolean;
}

export interface Session {
  version: number;
  folder: string;
  session: string;
  notice: string;
  classes: SessionClass[];
  marks: Mark[];
  reviewed: string[];
  good: string[];
  advice: Advice[];
  undo: boolean;
  redo: boolean;
}

export interface Images {
  listing: number;
  names: string[];
  stamps: string[];
}

export interface Result {
  image: string;
  stamp: string;
  key: string;
  hw: [number, number];
  trouble: string;
  ids: string[];
  labels: string[];
  scores: number[];
  boxes: Box[];
  verdicts: number[]; // 1 = marked, 2 = rejected
}

export interface Run {
  state: 'idle' | 'loading' | 'encoding' | 'detecting' | 'done' | 'error';
  line: string;
  done: number;
  total: number;
  key: string;
}

export interface Job {
  number: number;
  kind: '' | 'check' | 'threshold';
  label: string;
  running: boolean;
  done: number;
  total: number;
  line: string;
}

export interface News {
  program: string;
  project: string;
  number: number;
  more: boolean;
  version: number;
  listing: number;
  run: Run;
  job: Job;
  messages: string[];
  results: Result[];
}

export interface ExportState {
  number: number;
  kind: string;
  done: number;
  total: number;
  ready: boolean;
  file: string; // name of the finished file
  trouble: string;
}

export interface Provable {
  good: number; // images
  best: number; // N of the fewest false alarms, one in N good images; 0 = too few for any
  refusal: string; // why the number that was asked for cannot be proved
}

export interface FolderEntry {
  name: string;
  path: string;
  images: number;
}

export interface Stroke {
  points: number[];
  radius: number;
  erase: boolean;
}

export type Change =
  | { kind: 'box'; image: string; label: string; box: Box; negative: boolean }
  | { kind: 'paint'; image: string; label: string; strokes: Stroke[]; mark: string | null; negative: boolean }
  | { kind: 'change'; mark: string; box?: Box; label?: string }
  | { kind: 'remove'; mark: string }
  | { kind: 'unprompt'; image: string; label: string }
  | { kind: 'judge'; image: string; finding: string; accept: boolean }
  | { kind: 'class'; name: string }
  | { kind: 'rename'; name: string; to: string }
  | { kind: 'drop'; name: string }
  | { kind: 'threshold'; name: string; value: number | null }
  | { kind: 'review'; image: string; done: boolean }
  | { kind: 'good'; images: string[]; good: boolean };
