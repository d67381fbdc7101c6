// What follows from results, marks and thresholds; no request is needed when a slider moves.

import type { Mark, Result, Session } from './types';
import type { Show, Sort } from './store';

export type Thresholds = Record<string, number>;

export const thresholdsOf = (session: Session | null, moved: Thresholds): Thresholds => ({
  ...Object.fromEntries((session?.classes ?? []).map((own) => [own.name, own.threshold])),
  ...moved,
});

export interface Shown {
  row: number; // of the result
  label: string;
  score: number;
  verdict: number;
}

// Findings of an image that count: at least the threshold, neither rejected nor a mark already.
export function counting(result: Result | undefined, least: Thresholds, only: string | null): Shown[] {
  if (!result) return [];
  const rows: Shown[] = [];
  result.scores.forEach((score, row) => {
    const label = result.labels[row] ?? '';
    const wanted = (only === null || label === only) && result.verdicts[row] === 0;
    if (wanted && score >= (least[label] ?? 1)) rows.push({ row, label, score, verdict: 0 });
  });
  return rows;
}

export const byImage = (marks: Mark[]): Map<string, Mark[]> => Map.groupBy(marks, (mark) => mark.image);

export interface Totals {
  findings: number;
  images: number;
}

export function totals(results: Iterable<Result>, least: Thresholds): Map<string, Totals> {
  const all = new Map<string, Totals>();
  for (const result of results) {
    const seen = new Set<string>();
    for (const { label } of counting(result, least, null)) {
      const own = all.get(label) ?? { findings: 0, images: 0 };
      own.findings += 1;
      own.images += seen.has(label) ? 0 : 1;
      seen.add(label);
      all.set(label, own);
    }
  }
  return all;
}

export interface ListQuery {
  images: string[];
  results: Map<string, Result>;
  marks: Map<string, Mark[]>;
  reviewed: Set<string>;
  least: Thresholds;
  only: string | null;
  show: Show;
  sort: Sort;
}

// The images in the order of the page.
export function listed(query: ListQuery): string[] {
  const { images, results, marks, reviewed, least, only, show, sort } = query;
  const found = new Map(images.map((name) => [name, counting(results.get(name), least, only)]));
  const isMarked = (name: string): boolean =>
    (marks.get(name) ?? []).some((mark) => !mark.negative && (only === null || mark.label === only));
  const kept = images.filter((name) => {
    const any = (found.get(name)?.length ?? 0) > 0 || isMarked(name);
    if (show === 'with') return any;
    if (show === 'without') return !any;
    return show === 'open' ? !reviewed.has(name) : true;
  });
  if (sort === 'name') return kept;
  if (sort === 'open') return [...kept.filter((name) => !reviewed.has(name)), ...kept.filter((name) => reviewed.has(name))];
  const best = new Map(kept.map((name) => [name, highest(results.get(name), only)]));
  return kept.sort((a, b) => (best.get(b) ?? -1) - (best.get(a) ?? -1));
}

// The highest score of what is not rejected, whatever the threshold.
function highest(result: Result | undefined, only: string | null): number {
  if (!result) return -1;
  const row = result.scores.findIndex(
    (_, each) => result.verdicts[each] !== 2 && (only === null || result.labels[each] === only),
  );
  return row < 0 ? 0 : (result.scores[row] ?? 0);
}

// The best finding under its slider, and how many there are.
export function below(result: Result | undefined, least: Thresholds, only: string | null): { best: Shown; count: number } | null {
  const rows = (result?.scores ?? []).flatMap((score, row) => {
    const label = result?.labels[row] ?? '';
    const under = result?.verdicts[row] === 0 && (only === null || label === only) && score < (least[label] ?? 1);
    return under ? [{ row, label, score, verdict: 0 }] : [];
  });
  return rows[0] ? { best: rows[0], count: rows.length } : null; // best first, as results are
}

// A score that is less than another one, with the digits that show it.
export function lower(score: number, than: number): [string, string] {
  const tell = [percent, (value: number) => value.toFixed(3), (value: number) => value.toFixed(4)];
  const apart = tell.find((own) => own(score) !== own(than)) ?? String;
  return [apart(score), apart(than)];
}

export const percent = (score: number): string => (score < 0.095 ? score.toFixed(3) : score.toFixed(2));
