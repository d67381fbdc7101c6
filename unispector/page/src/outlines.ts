// The outlines of findings: fetched for images that are seen, kept for the newest few hundred.

import { useEffect, useState } from 'react';
import { address, get } from './api';
import type { Polygon, Result } from './types';

type Outlines = Map<string, Polygon[]>;

const KEPT = 300;
const kept = new Map<string, Outlines>();

export function useOutlines(result: Result | undefined, wanted: boolean): Outlines | null {
  const name = result ? `${result.key}\0${result.stamp}\0${result.image}` : '';
  const [, setLoaded] = useState('');
  useEffect(() => {
    if (!result || !wanted || !result.ids.length || kept.has(name)) return;
    let shown = true;
    get<{ id: string; outlines: Polygon[] }[]>(address('/bench/findings', { image: result.image })).then(
      (found) => {
        kept.set(name, new Map(found.map((own) => [own.id, own.outlines])));
        for (const old of [...kept.keys()].slice(0, Math.max(0, kept.size - KEPT))) kept.delete(old);
        if (shown) setLoaded(name);
      },
      () => undefined, // the boxes are there; the next look tries again
    );
    return () => {
      shown = false;
    };
  }, [name, result, wanted]);
  return kept.get(name) ?? null;
}

export const path = (polygon: Polygon): string => {
  let text = '';
  for (let at = 0; at + 1 < polygon.length; at += 2) text += `${at ? 'L' : 'M'}${polygon[at]} ${polygon[at + 1]}`;
  return `${text}Z`;
};
