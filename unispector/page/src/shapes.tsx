// Findings and marks as Konva shapes, in pixels of the image.

import type { KonvaEventObject } from 'konva/lib/Node';
import type { ReactElement } from 'react';
import { Group, Label, Line, Rect, Tag, Text } from 'react-konva';
import { percent, type Shown } from './derive';
import type { Mark, Polygon, Result } from './types';

interface CaptionProps {
  x: number;
  y: number;
  text: string;
  colour: string;
  scale: number; // of the image on the screen
}

// As large as on any screen, above its box where there is room.
export function Caption({ x, y, text, colour, scale }: CaptionProps): ReactElement {
  const above = y * scale > 18;
  return (
    <Label x={x} y={y} scaleX={1 / scale} scaleY={1 / scale} offsetY={above ? 18 : 0} listening={false}>
      <Tag fill={colour} cornerRadius={2} opacity={0.94} />
      <Text text={text} fontSize={11.5} padding={3} fill="#101418" fontStyle="600" fontFamily="system-ui, sans-serif" />
    </Label>
  );
}

interface FindingProps {
  own: Shown;
  result: Result;
  outlines: Polygon[];
  colour: string;
  scale: number;
  chosen: boolean;
  rejected: boolean;
  outdated: boolean;
  masks: boolean;
  choose: () => void;
}

export function FindingShape(props: FindingProps): ReactElement | null {
  const { own, result, outlines, colour, scale, chosen, rejected, outdated, masks, choose } = props;
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
      {!rejected && <Caption x={box[0]} y={box[1]} text={`${own.label} ${percent(own.score)}`} colour={colour} scale={scale} />}
    </Group>
  );
}

interface MarkProps {
  mark: Mark;
  colour: string;
  scale: number;
  chosen: boolean;
  movable: boolean;
  masks: boolean;
  choose: () => void;
  move: (event: KonvaEventObject<unknown>) => void;
}

export function MarkShape({ mark, colour, scale, chosen, movable, masks, choose, move }: MarkProps): ReactElement {
  const line = mark.negative ? '#ff5c5c' : colour;
  const [left, top, width, height] = mark.box;
  const words = mark.negative ? `not ${mark.label}` : mark.origin === 'accepted' ? `${mark.label} ✓` : mark.label;
  return (
    <Group>
      {masks &&
        mark.outlines.map((points, at) => (
          <Line key={at} points={points} closed fill={line} opacity={0.35} onClick={choose} onTap={choose} perfectDrawEnabled={false} />
        ))}
      {/* Light under dark, so that it shows on any image. */}
      <Rect x={left} y={top} width={width} height={height} stroke="white" strokeWidth={3.5} opacity={0.85} strokeScaleEnabled={false} listening={false} />
      <Rect
        id={mark.id}
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
        draggable={movable && chosen && !mark.outlines.length}
        onClick={choose}
        onTap={choose}
        onDragEnd={move}
        onTransformEnd={move}
      />
      <Caption x={left} y={top} text={words} colour={mark.negative ? '#ff8f8f' : '#ffffff'} scale={scale} />
    </Group>
  );
}
