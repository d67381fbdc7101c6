// One image: its marks and findings, and the tools to draw.

import { ActionIcon, Badge, Button, Group, Modal, ScrollArea, SegmentedControl, Switch, Text, TextInput, Tooltip } from '@mantine/core';
import {
  IconArrowLeft,
  IconArrowRight,
  IconBrush,
  IconCheck,
  IconEraser,
  IconPointer,
  IconRectangle,
  IconThumbDown,
  IconThumbUp,
  IconTrash,
} from '@tabler/icons-react';
import type OpenSeadragon from 'openseadragon';
import { Fragment, useEffect, useMemo, useState, type ReactElement } from 'react';
import { MarkAdvice } from './advice';
import { post } from './api';
import { Canvas } from './canvas';
import { counting, percent, thresholdsOf } from './derive';
import { useList } from './grid';
import { change, openImage, set, tell, toggleGood, useBench, type Tool } from './store';
import type { Box, Mark, Result, Stroke } from './types';
import { Viewer } from './viewer';

type Drawn = { box: Box } | { strokes: Stroke[] };

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

  const keep = async (what: Drawn, label: string): Promise<void> => {
    const chosen = marks.find((own) => own.id === mark);
    if ('box' in what) {
      await change({ kind: 'box', image: current, label, box: what.box, negative });
    } else if (what.strokes[0]?.erase === true && !chosen?.outlines.length) {
      tell('Choose a mask first: the eraser takes away from it');
    } else {
      const onto = chosen && chosen.outlines.length ? chosen.id : null;
      await change({ kind: 'paint', image: current, label, strokes: what.strokes, mark: onto, negative });
      // The next stroke goes on with the new mask.
      const newest = useBench.getState().session?.marks.filter((own) => own.image === current).at(-1);
      if (onto === null && newest) set({ mark: newest.id });
    }
  };
  const drawn = (what: Drawn): void => {
    if (active === null) setUnnamed(what);
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
            />
          )}
        </Viewer>
      </div>
      <Side image={current} result={result} marks={marks} outdated={result !== undefined && result.key !== run.key} />
      <NameDialog
        opened={unnamed !== null}
        close={() => setUnnamed(null)}
        named={(name) => {
          const what = unnamed;
          setUnnamed(null);
          if (what) void keep(what, name).then(() => set({ active: name }));
        }}
      />
    </div>
  );
}

function NameDialog({ opened, close, named }: { opened: boolean; close: () => void; named: (name: string) => void }): ReactElement {
  const [name, setName] = useState('');
  useEffect(() => setName(''), [opened]);
  return (
    <Modal opened={opened} onClose={close} title="What is this defect called?" size="sm" centered>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (name.trim()) named(name.trim());
        }}
      >
        <TextInput
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
          placeholder="scratch, dent, stain …"
          data-autofocus
          aria-label="Name of the defect"
        />
        <Group justify="flex-end" mt="md">
          <Button variant="default" onClick={close}>
            Discard
          </Button>
          <Button type="submit" disabled={!name.trim()}>
            Look for it
          </Button>
        </Group>
      </form>
    </Modal>
  );
}

const TOOLS: [Tool, string, string, typeof IconPointer][] = [
  ['move', 'Choose, move, pan', 'V', IconPointer],
  ['box', 'Draw a box', 'B', IconRectangle],
  ['brush', 'Brush a mask', 'M', IconBrush],
  ['eraser', 'Erase from a mask', 'E', IconEraser],
];

export function step(names: string[], current: string | null, by: number): void {
  const next = names[(current === null ? -1 : names.indexOf(current)) + by];
  if (next !== undefined) openImage(next);
}

function Tools({ image, names }: { image: string; names: string[] }): ReactElement {
  const { tool, negative, brush, masks, session } = useBench();
  const at = names.indexOf(image);
  const done = session?.reviewed.includes(image) ?? false;
  const good = session?.good.includes(image) ?? false;
  return (
    <div className="tools">
      <Group gap={2} wrap="nowrap">
        {TOOLS.map(([name, about, key, Icon]) => (
          <Tooltip key={name} label={`${about} (${key})`}>
            <ActionIcon
              size="lg"
              variant={tool === name ? 'filled' : 'subtle'}
              color={tool === name ? 'bench' : 'gray'}
              aria-label={about}
              aria-pressed={tool === name}
              onClick={() => set({ tool: name })}
            >
              <Icon size={19} stroke={1.7} />
            </ActionIcon>
          </Tooltip>
        ))}
      </Group>
      {(tool === 'brush' || tool === 'eraser') && (
        <Tooltip label="Radius of the brush (Shift + and −)">
          <input
            type="range"
            min={3}
            max={60}
            value={brush}
            onChange={(event) => set({ brush: Number(event.currentTarget.value) })}
            aria-label="Radius of the brush"
            className="brushsize"
          />
        </Tooltip>
      )}
      {tool !== 'move' && tool !== 'eraser' && (
        <Tooltip label="What is drawn looks like the defect, but is none (N)">
          <div>
            <SegmentedControl
              size="xs"
              value={negative ? 'not' : 'is'}
              onChange={(value) => set({ negative: value === 'not' })}
              data={[
                { value: 'is', label: 'Defect' },
                { value: 'not', label: 'Not it' },
              ]}
            />
          </div>
        </Tooltip>
      )}
      <Switch size="xs" label="Masks" checked={masks} onChange={() => set({ masks: !masks })} className="wideonly" />
      <Group gap={4} ml="auto" wrap="nowrap" miw={0}>
        <Text size="xs" c="dimmed" truncate className="imagename" title={image}>
          {image} {at >= 0 && `· ${at + 1} of ${names.length}`}
        </Text>
        <Tooltip label="Previous image (←)">
          <ActionIcon aria-label="Previous image" disabled={at <= 0} onClick={() => step(names, image, -1)}>
            <IconArrowLeft size={18} />
          </ActionIcon>
        </Tooltip>
        <Tooltip label="Next image (→)">
          <ActionIcon aria-label="Next image" disabled={at < 0 || at + 1 >= names.length} onClick={() => step(names, image, 1)}>
            <IconArrowRight size={18} />
          </ActionIcon>
        </Tooltip>
        <Tooltip label="It shows no defect (G)">
          <Button
            size="compact-sm"
            variant={good ? 'light' : 'default'}
            color={good ? 'green' : 'bench'}
            aria-pressed={good}
            onClick={() => toggleGood(image, false)}
          >
            Good
          </Button>
        </Tooltip>
        <Tooltip label="Done with this image (D)">
          <Button
            size="compact-sm"
            variant={done ? 'light' : 'default'}
            leftSection={<IconCheck size={14} />}
            onClick={() => void change({ kind: 'review', image, done: !done })}
          >
            {done ? 'Reviewed' : 'Done'}
          </Button>
        </Tooltip>
      </Group>
    </div>
  );
}

interface SideProps {
  image: string;
  result: Result | undefined;
  marks: Mark[];
  outdated: boolean;
}

// The findings that the keys go through: those that count and that nobody judged, best first.
export function openFindings(): string[] {
  const { current, results, session, moved, only } = useBench.getState();
  const result = current === null ? undefined : results.get(current);
  if (!result) return [];
  return counting(result, thresholdsOf(session, moved), only)
    .filter((own) => own.verdict === 0)
    .map((own) => result.ids[own.row] ?? '');
}

export async function judge(finding: string | null, accept: boolean): Promise<void> {
  const { current } = useBench.getState();
  const open = openFindings();
  const wanted = finding ?? open[0];
  if (current === null || wanted === undefined) {
    tell('No finding to judge on this image; lower the slider of a class');
    return;
  }
  const next = open[open.indexOf(wanted) + 1] ?? open.find((own) => own !== wanted) ?? null;
  if (await change({ kind: 'judge', image: current, finding: wanted, accept })) set({ finding: next, mark: null });
}

function Side({ image, result, marks, outdated }: SideProps): ReactElement {
  const { session, moved, only, finding, mark, run } = useBench();
  const advice = (session?.advice ?? []).filter((line) => line.image === image);
  const least = thresholdsOf(session, moved);
  const colours = new Map(session?.classes.map((own) => [own.name, own.colour]));
  const found = counting(result, least, only).filter((own) => own.verdict === 0);
  const below = result ? result.scores.filter((score, row) => result.verdicts[row] === 0 && score < (least[result.labels[row] ?? ''] ?? 1)) : [];
  return (
    <aside className="side" aria-label="Findings">
      <ScrollArea h="100%" type="auto" scrollbarSize={8}>
        <Heading text="Findings" count={found.length} note={outdated ? 'outdated, searching' : ''} />
        {found.map((own) => {
          const id = result?.ids[own.row] ?? '';
          return (
            <div key={id} className="item" data-chosen={id === finding} data-testid="finding" onClick={() => set({ finding: id, mark: null })}>
              <span className="dot" style={{ background: colours.get(own.label) }} />
              <Text size="sm" truncate flex={1}>
                {own.label}
              </Text>
              <Text size="sm" ff="monospace">
                {percent(own.score)}
              </Text>
              <Tooltip label="Accept: one more mark (A)">
                <ActionIcon size="sm" aria-label="Accept" onClick={() => void judge(id, true)}>
                  <IconThumbUp size={15} />
                </ActionIcon>
              </Tooltip>
              <Tooltip label="Reject: what it is not (R)">
                <ActionIcon size="sm" aria-label="Reject" onClick={() => void judge(id, false)}>
                  <IconThumbDown size={15} />
                </ActionIcon>
              </Tooltip>
            </div>
          );
        })}
        {found.length === 0 && (
          <Text size="xs" c="dimmed" px="sm" pb="xs">
            {result?.trouble ? result.trouble : nothing(run.key !== '', result !== undefined, below)}
          </Text>
        )}
        <Heading text="Marks" count={marks.length} note="" />
        {marks.map((own) => (
          <Fragment key={own.id}>
          <div className="item" data-chosen={own.id === mark} data-testid="mark" onClick={() => set({ mark: own.id, finding: null })}>
            <span className="dot" style={{ background: own.negative ? '#ff5c5c' : colours.get(own.label) }} />
            <Text size="sm" truncate flex={1}>
              {own.negative ? `not ${own.label === '*' ? 'a defect' : own.label}` : own.label}
            </Text>
            <Badge size="xs" variant="default" className="plain">
              {own.origin === 'drawn' ? (own.outlines.length ? 'mask' : 'box') : own.origin}
            </Badge>
            <Tooltip label="Remove (Delete)">
              <ActionIcon size="sm" aria-label="Remove the mark" onClick={() => void change({ kind: 'remove', mark: own.id })}>
                <IconTrash size={15} />
              </ActionIcon>
            </Tooltip>
          </div>
          {lastOf(marks, own) && advice.filter((line) => line.label === own.label).map((line) => <MarkAdvice key={line.text} line={line} />)}
          </Fragment>
        ))}
        {marks.length === 0 && (
          <Text size="xs" c="dimmed" px="sm" pb="xs">
            None on this image. Press B and draw a box around a defect, close to its edge.
          </Text>
        )}
      </ScrollArea>
    </aside>
  );
}

function nothing(prompted: boolean, searched: boolean, below: number[]): string {
  if (!prompted) return 'Nothing is looked for yet: mark a defect.';
  if (!searched) return 'This image waits to be searched.';
  if (!below.length) return 'Nothing was found here.';
  return `Nothing reaches the slider. The best of ${below.length} lower ones scores ${percent(Math.max(...below))}.`;
}

function Heading({ text, count, note }: { text: string; count: number; note: string }): ReactElement {
  return (
    <Group gap={6} px="sm" pt="sm" pb={4}>
      <Text size="xs" fw={700} tt="uppercase" c="dimmed" lts={0.6}>
        {text}
      </Text>
      <Text size="xs" c="dimmed">
        {count}
      </Text>
      <Text size="xs" c="orange" ml="auto">
        {note}
      </Text>
    </Group>
  );
}

// Advice is about all marks of a class on the image; it stands under the last of them.
const lastOf = (marks: Mark[], own: Mark): boolean =>
  !own.negative && marks.findLast((each) => each.label === own.label && !each.negative) === own;
