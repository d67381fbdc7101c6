// One image, and what is drawn on it.

import type OpenSeadragon from 'openseadragon';
import { useEffect, useMemo, useState, type ReactElement } from 'react';
import { post } from './api';
import { Canvas, type Drawn } from './canvas';
import { thresholdsOf } from './derive';
import { useList } from './grid';
import { NameDialog } from './names';
import { Side } from './side';
import { change, set, tell, useBench } from './store';
import { Tools } from './tools';
import { Viewer } from './viewer';

export let viewed: OpenSeadragon.Viewer | null = null; // the keys zoom it

export function ImageView(): ReactElement | null {
  const { current, session, results, run, tool, active, negative, brush, mark, finding, moved, only, masks } = useBench();
  const [unnamed, setUnnamed] = useState<Drawn | null>(null);
  const names = useList();
  useEffect(() => {
    if (current !== null) {
      const at = names.indexOf(current);
      const near = [current, ...names.slice(at + 1, at + 6)];
      void post('/bench/seen', { images: near }).catch(() => undefined);
    }
  }, [current]); // eslint-disable-line
  const marks = useMemo(() => (session?.marks ?? []).filter((own) => own.image === current), [session, current]);
  const colours = useMemo(() => new Map(session?.classes.map((own) => [own.name, own.colour])), [session]);
  const least = useMemo(() => thresholdsOf(session, moved), [session, moved]);
  if (current === null) return null;
  const result = results.get(current);

  const chosen = marks.find((own) => own.id === mark);
  const keep = async (what: Drawn, label: string, told?: (line: string) => void): Promise<boolean> => {
    if ('box' in what) return change({ kind: 'box', image: current, label, box: what.box, negative }, told);
    const onto = chosen?.outlines.length ? chosen.id : null;
    const done = await change({ kind: 'paint', image: current, label, strokes: what.strokes, mark: onto, negative }, told);
    // The next stroke goes on with the new mask.
    const newest = useBench.getState().session?.marks.filter((own) => own.image === current).at(-1);
    if (done && onto === null && newest) set({ mark: newest.id });
    return done;
  };
  const drawn = (what: Drawn): void => {
    if ('strokes' in what && what.strokes[0]?.erase === true && !chosen?.outlines.length) {
      tell('Choose a mask first: the eraser takes away from it');
    } else if (active === null) setUnnamed(what);
    else void keep(what, active);
  };
  return (
    <div className="imageview">
      <div className="canvasside">
        <Tools image={current} names={names} />
        <Viewer image={current} drawing={tool !== 'move'} onReady={(made) => (viewed = made)}>
          {(frame, viewer) => (
            <Canvas
              frame={frame}
              viewer={viewer}
              result={result}
              outdated={result !== undefined && result.key !== run.key}
              marks={only === null ? marks : marks.filter((own) => own.label === only)}
              least={least}
              only={only}
              colours={colours}
              masks={masks}
              tool={tool}
              brush={brush}
              colour={negative ? '#ff5c5c' : (colours.get(active ?? '') ?? '#ffb000')}
              mark={mark}
              finding={finding}
              drawn={drawn}
              unnamed={unnamed}
            />
          )}
        </Viewer>
      </div>
      <Side image={current} result={result} marks={marks} outdated={result !== undefined && result.key !== run.key} />
      <NameDialog
        opened={unnamed !== null}
        close={() => setUnnamed(null)}
        named={async (name, told) => {
          const done = unnamed !== null && (await keep(unnamed, name, told));
          if (done) {
            setUnnamed(null);
            set({ active: name });
          }
          return done;
        }}
      />
    </div>
  );
}
