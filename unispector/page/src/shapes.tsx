// Findings and marks as Konva shapes, in pixels of the image.

import type { KonvaEventObject } from 'konva/lib/Node';
import type { ReactElement } from 'react';
import { Group, Label, Line, Rect, Tag, Text } from 'react-konva';
import type { Shown } from './derive';
import type { Box, Mark, Polygon, Result } from './types';

export interface CaptionOf {
  key: string;
  box: Box;
  text: string;
  colour: string;
  must: boolean; // shown even where it covers another
}

const HIGH = 18; // of a caption, in pixels of the screen

// The captions beside their boxes, as large at any zoom; one that finds no room beside better ones is left out.
export function Captions({ all, scale }: { all: CaptionOf[]; scale: number }): ReactElement {
  const taken: [number, number, number, number][] = [];
  const placed: ReactElement[] = [];
  for (const own of all) {
    const wide = 8 + 6.9 * own.text.length;
    const [left, top, width, height] = own.box.map((value) => value * scale) as Box;
    const places: [number, number][] = [
      [left, top - HIGH],
      [left, top + height],
      [left + width - wide, top - HIGH],
      [left + width - wide, top + height],
      [left + width, top],
    ];
    const free = ([x, y]: [number, number]): boolean =>
      y >= -HIGH && taken.every((other) => x >= other[0] + other[2] || other[0] >= x + wide || y >= other[1] + other[3] || other[1] >= y + HIGH);
    const place = places.find(free) ?? (own.must ? places[0] : undefined);
    if (!place) continue;
    taken.push([...place, wide, HIGH]);
    placed.push(
      <Label key={own.key} x={place[0] / scale} y={place[1] / scale} scaleX={1 / scale} scaleY={1 / scale} listening={false}>
        <Tag fill={own.colour} cornerRadius={2} opacity={0.94} />
        <Text text={own.text} fontSize={11.5} padding={3} fill="#101418" fontStyle="600" fontFamily="system-ui, sans-serif" />
      </Label>,
    );
  }
  return <>{placed}</>;
}

interface FindingProps {
  own: Shown;
  result: Result;
  outlines: Polygon[];
  colour: string;
  chosen: boolean;
  rejected: boolean;
  outdated: boolean;
  masks: boolean;
  choose: () => void;
}

export function FindingShape(props: FindingProps): ReactElement | null {
  const { own, result, outlines, colour, chosen, rejected, outdated, masks, choose } = props;
  const box = result.boxes[own.row];
  if (!box) return null;
  const line = rejected ? '#8a9099' : colour;
  return (
    <Group opacity={outdated ? 0.45 : 1} onClick={choose} onTap={choose}>
      {masks &&
        outlines.map((points, at) => (
          <Line key={at} points={points} closed fill={line} opacity={chosen ? 0.5 : rejected ? 0.12 : 0.32} perfectDrawEnabled={false} />
        ))}
      <Rect
        x={box[0]}
        y={box[1]}
        width={box[2]}
        height={box[3]}
        stroke={line}
        strokeWidth={chosen ? 3 : 1.5}
        strokeScaleEnabled={false}
        dash={rejected ? [3, 4] : []}
        hitStrokeWidth={8}
        perfectDrawEnabled={false}
      />
    </Group>
  );
}

interface MarkProps {
  mark: Mark;
  colour: string;
  chosen: boolean;
  movable: boolean;
  masks: boolean;
  choose: () => void;
  move: (event: KonvaEventObject<unknown>) => void;
}

export function MarkShape({ mark, colour, chosen, movable, masks, choose, move }: MarkProps): ReactElement {
  const line = mark.negative ? '#ff5c5c' : colour;
  const [left, top, width, height] = mark.box;
  const masked = mark.outlines.length > 0;
  return (
    // A mask moves with its box: the group is dragged, and stands at its place again when the mask has moved.
    <Group id={masked ? mark.id : ''} draggable={movable && chosen && masked} onDragEnd={(event) => masked && move(event)}>
      {masks &&
        mark.outlines.map((points, at) => (
          <Line key={at} points={points} closed fill={line} opacity={0.35} onClick={choose} onTap={choose} perfectDrawEnabled={false} />
        ))}
      {/* Light under dark, so that it shows on any image. */}
      <Rect x={left} y={top} width={width} height={height} stroke="white" strokeWidth={3.5} opacity={0.85} strokeScaleEnabled={false} listening={false} />
      <Rect
        id={masked ? '' : mark.id}
        name="mark"
        x={left}
        y={top}
        width={width}
        height={height}
        stroke={line}
        strokeWidth={2}
        dash={mark.negative ? [4, 4] : [9, 4]}
        strokeScaleEnabled={false}
        hitStrokeWidth={12}
        fill={chosen ? 'rgba(255,255,255,0.06)' : ''}
        draggable={movable && chosen && !masked}
        onClick={choose}
        onTap={choose}
        onDragEnd={(event) => !masked && move(event)}
        onTransformEnd={move}
      />
    </Group>
  );
}
