// What is drawn over an image, and how marks are drawn on it: mouse, pen and touch.

import type Konva from 'konva';
import type { KonvaEventObject } from 'konva/lib/Node';
import OpenSeadragon from 'openseadragon';
import { useEffect, useRef, useState, type PointerEvent, type ReactElement } from 'react';
import { Layer, Line, Rect, Stage, Transformer } from 'react-konva';
import { counting, percent, type Thresholds } from './derive';
import { useOutlines } from './outlines';
import { Captions, FindingShape, MarkShape, type CaptionOf } from './shapes';
import { change, set, type Tool } from './store';
import type { Box, Mark, Result, Stroke } from './types';
import type { Frame } from './viewer';

export type Drawn = { box: Box } | { strokes: Stroke[] };

interface CanvasProps {
  frame: Frame;
  viewer: OpenSeadragon.Viewer;
  result: Result | undefined;
  outdated: boolean;
  marks: Mark[];
  least: Thresholds;
  only: string | null;
  colours: Map<string, string>;
  masks: boolean;
  tool: Tool;
  brush: number; // radius in pixels of the screen
  colour: string; // of what is drawn
  mark: string | null;
  finding: string | null;
  drawn?: (what: Drawn) => void;
  unnamed?: Drawn | null; // drawn, and not kept yet
}

interface Draft {
  from: [number, number];
  to: [number, number];
  points: number[];
}

export function Canvas(props: CanvasProps): ReactElement {
  const { frame, viewer, result, outdated, marks, least, only, colours, masks, tool, brush, colour, mark, finding, drawn, unnamed = null } = props;
  const stage = useRef<Konva.Stage>(null);
  const transformer = useRef<Konva.Transformer>(null);
  const holder = useRef<HTMLDivElement>(null);
  const [draft, setDraft] = useState<Draft | null>(null);
  const [cursor, setCursor] = useState<[number, number] | null>(null);
  const pointers = useRef(new Map<number, [number, number]>());
  const panning = useRef<[number, number] | null>(null);
  const outlines = useOutlines(result, masks);
  const drawing = tool !== 'move' && drawn !== undefined;
  const chosen = marks.find((own) => own.id === mark);
  const editable = chosen !== undefined && !chosen.outlines.length && tool === 'move' && drawn !== undefined;

  useEffect(() => {
    const node = editable && mark !== null ? stage.current?.findOne(`#${mark}`) : undefined;
    transformer.current?.nodes(node ? [node] : []);
  }, [editable, mark, marks]);

  // Esc drops what is being drawn, before the page's own keys see it.
  const busy = draft !== null;
  useEffect(() => {
    const drop = (event: KeyboardEvent): void => {
      if (event.key !== 'Escape') return;
      event.stopImmediatePropagation();
      setDraft(null);
    };
    if (busy) window.addEventListener('keydown', drop, true);
    return () => window.removeEventListener('keydown', drop, true);
  }, [busy]);

  const place = (event: PointerEvent): [number, number] => {
    const bounds = holder.current?.getBoundingClientRect();
    return [event.clientX - (bounds?.left ?? 0), event.clientY - (bounds?.top ?? 0)];
  };
  const inImage = ([x, y]: [number, number]): [number, number] => [(x - frame.x) / frame.scale, (y - frame.y) / frame.scale];

  const down = (event: PointerEvent): void => {
    const at = place(event);
    if (!drawing) {
      // A mark that is moved or resized does not move the image.
      const hit = stage.current?.getIntersection({ x: at[0], y: at[1] });
      const parent = hit?.getParent();
      if (hit && (parent?.className === 'Transformer' || hit.draggable() || parent?.draggable())) event.stopPropagation();
      return;
    }
    if (event.button > 1) return;
    event.stopPropagation();
    holder.current?.setPointerCapture(event.pointerId);
    panning.current = event.button === 1 ? at : null; // the middle button pans while the left one draws
    if (panning.current) {
      event.preventDefault();
      return;
    }
    pointers.current.set(event.pointerId, at);
    const point = inImage(at);
    setDraft(pointers.current.size > 1 ? null : { from: point, to: point, points: [...point] });
  };

  const moved = (event: PointerEvent): void => {
    const at = place(event);
    if (drawing && (tool === 'brush' || tool === 'eraser')) setCursor(at);
    if (panning.current) {
      const by = new OpenSeadragon.Point(panning.current[0] - at[0], panning.current[1] - at[1]);
      viewer.viewport.panBy(viewer.viewport.deltaPointsFromPixels(by), true);
      panning.current = at;
      return;
    }
    const before = pointers.current.get(event.pointerId);
    if (!drawing || !before) return;
    event.stopPropagation();
    if (pointers.current.size > 1) {
      pinch(viewer, pointers.current, event.pointerId, at);
    } else if (draft) {
      const point = inImage(at);
      setDraft({ ...draft, to: point, points: [...draft.points, ...point] });
    }
    pointers.current.set(event.pointerId, at);
  };

  const up = (event: PointerEvent): void => {
    panning.current = null;
    if (!pointers.current.delete(event.pointerId) || !draft || pointers.current.size) return;
    event.stopPropagation();
    setDraft(null);
    const last = inImage(place(event));
    if (event.type === 'pointercancel' || !drawn) return;
    if (tool === 'box') {
      const [x, y, right, bottom] = [...draft.from, ...last];
      const far = Math.min(Math.abs(right - x), Math.abs(bottom - y)) * frame.scale >= 3;
      if (far) drawn({ box: wholePixels(x, y, right, bottom) }); // a click draws nothing
    } else {
      drawn({ strokes: [{ points: thinned([...draft.points, ...last], frame.scale), radius: brush / frame.scale, erase: tool === 'eraser' }] });
    }
  };

  const reshape = (event: KonvaEventObject<unknown>): void => {
    const node = event.target as Konva.Rect;
    const own = marks.find((each) => each.id === node.id());
    if (!own) return;
    if (own.outlines.length) {
      const [left, top, wide, high] = own.box;
      const box: Box = [left + node.x(), top + node.y(), wide, high];
      void change({ kind: 'change', mark: own.id, box }).then(() => node.position({ x: 0, y: 0 }));
      return;
    }
    const [width, height] = [node.width() * Math.abs(node.scaleX()), node.height() * Math.abs(node.scaleY())];
    const box: Box = [node.x(), node.y(), width, height];
    node.scale({ x: 1, y: 1 });
    void change({ kind: 'change', mark: node.id(), box }).then((done) => {
      if (!done) node.setAttrs({ x: own.box[0], y: own.box[1], width: own.box[2], height: own.box[3] });
    });
  };

  // A mark stands for the finding at its place.
  const shown = counting(result, least, only);
  const refused = rejectedRows(result, least, only);
  const captions: CaptionOf[] = [
    ...marks.map((own) => ({
      key: own.id,
      box: own.box,
      text: own.negative ? `not ${own.label === '*' ? 'a defect' : own.label}` : own.label,
      colour: own.negative ? '#ff8f8f' : '#ffffff',
      must: own.id === mark,
    })),
    ...shown.map((own) => ({
      key: result?.ids[own.row] ?? '',
      box: result?.boxes[own.row] ?? ([0, 0, 0, 0] as Box),
      text: result?.ids[own.row] === finding ? `${own.label} ${percent(own.score)}` : percent(own.score),
      colour: colours.get(own.label) ?? '#888888',
      must: result?.ids[own.row] === finding,
    })),
  ].sort((a, b) => Number(b.must) - Number(a.must));
  const stroke = unnamed && 'strokes' in unnamed ? unnamed.strokes[0] : undefined;
  const points = stroke?.points ?? (draft && (tool === 'brush' || tool === 'eraser') ? draft.points : []);
  const box = unnamed && 'box' in unnamed ? unnamed.box : draft && tool === 'box' ? boxOf(draft) : null;
  const layer = { x: frame.x, y: frame.y, scaleX: frame.scale, scaleY: frame.scale };
  return (
    <div
      ref={holder}
      className="canvas"
      data-tool={drawing ? tool : 'move'}
      data-frame={JSON.stringify({ x: frame.x, y: frame.y, scale: frame.scale })}
      onPointerDown={down}
      onPointerMove={moved}
      onPointerUp={up}
      onPointerCancel={up}
      onPointerLeave={() => setCursor(null)}
    >
      <Stage ref={stage} width={frame.width} height={frame.height} listening={!drawing}>
        <Layer {...layer}>
          {result &&
            [...refused, ...shown.toReversed()].map((own) => (
              <FindingShape
                key={result.ids[own.row]}
                own={own}
                result={result}
                outlines={outlines?.get(result.ids[own.row] ?? '') ?? []}
                colour={colours.get(own.label) ?? '#888888'}
                chosen={result.ids[own.row] === finding}
                rejected={own.verdict === 2}
                outdated={outdated}
                masks={masks}
                choose={() => !drawing && set({ finding: result.ids[own.row] ?? null, mark: null })}
              />
            ))}
          {marks.map((own) => (
            <MarkShape
              key={own.id}
              mark={own}
              colour={colours.get(own.label) ?? '#888888'}
              chosen={own.id === mark}
              movable={!drawing && drawn !== undefined}
              masks={masks}
              choose={() => !drawing && set({ mark: own.id, finding: null })}
              move={reshape}
            />
          ))}
          <Captions all={captions} scale={frame.scale} />
          {box && (
            <Rect
              x={box[0]}
              y={box[1]}
              width={box[2]}
              height={box[3]}
              stroke={colour}
              strokeWidth={2}
              strokeScaleEnabled={false}
              fill={`${colour}22`}
              listening={false}
            />
          )}
          {points.length > 0 && (
            <Line
              points={points.length > 2 ? points : [...points, ...points]}
              stroke={tool === 'eraser' ? '#ffffff' : colour}
              opacity={0.55}
              strokeWidth={2 * (stroke?.radius ?? brush / frame.scale)}
              lineCap="round"
              lineJoin="round"
              listening={false}
            />
          )}
        </Layer>
        <Layer>
          <Transformer
            ref={transformer}
            rotateEnabled={false}
            flipEnabled={false}
            ignoreStroke
            keepRatio={false}
            anchorSize={11}
            anchorCornerRadius={2}
            borderStroke="#137f82"
            anchorStroke="#137f82"
          />
        </Layer>
      </Stage>
      {cursor && drawing && (
        <div className="brushcursor" style={{ left: cursor[0] - brush, top: cursor[1] - brush, width: 2 * brush, height: 2 * brush }} />
      )}
    </div>
  );
}

const boxOf = ({ from, to }: Draft): Box => [
  Math.min(from[0], to[0]),
  Math.min(from[1], to[1]),
  Math.abs(to[0] - from[0]),
  Math.abs(to[1] - from[1]),
];

// The whole pixels between two corners, at least one.
function wholePixels(x: number, y: number, right: number, bottom: number): Box {
  const [left, width] = between(Math.min(x, right), Math.max(x, right));
  const [top, height] = between(Math.min(y, bottom), Math.max(y, bottom));
  return [left, top, width, height];
}

function between(from: number, to: number): [number, number] {
  const [first, last] = [Math.round(from), Math.round(to)];
  return last > first ? [first, last - first] : [Math.floor(from), 1];
}

// Rejected findings stay visible, greyed, as far as their score goes.
function rejectedRows(result: Result | undefined, least: Thresholds, only: string | null): ReturnType<typeof counting> {
  if (!result) return [];
  return result.scores.flatMap((score, row) => {
    const label = result.labels[row] ?? '';
    const wanted = result.verdicts[row] === 2 && score >= (least[label] ?? 1) && (only === null || only === label);
    return wanted ? [{ row, label, score, verdict: 2 }] : [];
  });
}

// Points nearer than a pixel of the screen tell nothing more.
function thinned(points: number[], scale: number): number[] {
  const kept = points.slice(0, 2);
  for (let at = 2; at + 1 < points.length; at += 2) {
    const [x, y] = [points[at] ?? 0, points[at + 1] ?? 0];
    const far = Math.hypot(x - (kept.at(-2) ?? 0), y - (kept.at(-1) ?? 0)) * scale >= 1.5;
    if (far || at + 2 >= points.length) kept.push(x, y);
  }
  return kept.map((value) => Math.round(value * 10) / 10);
}

// Two fingers zoom and pan while one would draw.
function pinch(viewer: OpenSeadragon.Viewer, fingers: Map<number, [number, number]>, id: number, at: [number, number]): void {
  const [a, b] = [...fingers.entries()].slice(0, 2);
  if (!a || !b) return;
  const after: [[number, number], [number, number]] = [a[0] === id ? at : a[1], b[0] === id ? at : b[1]];
  const middle = (one: [number, number], two: [number, number]): OpenSeadragon.Point =>
    viewer.viewport.pointFromPixel(new OpenSeadragon.Point((one[0] + two[0]) / 2, (one[1] + two[1]) / 2), true);
  const span = (one: [number, number], two: [number, number]): number => Math.hypot(one[0] - two[0], one[1] - two[1]) || 1;
  const from = middle(a[1], b[1]);
  const to = middle(...after);
  viewer.viewport.panBy(from.minus(to), true);
  viewer.viewport.zoomBy(span(...after) / span(a[1], b[1]), to, true);
}
