// The panel beside an open image: its findings, to be judged, and its marks.

import { ActionIcon, Badge, Group, ScrollArea, Text, Tooltip } from '@mantine/core';
import { useMediaQuery } from '@mantine/hooks';
import { IconThumbDown, IconThumbUp, IconTrash } from '@tabler/icons-react';
import { Fragment, type ReactElement } from 'react';
import { MarkAdvice } from './advice';
import { below, counting, lower, percent, thresholdsOf, type Thresholds } from './derive';
import { change, set, tell, useBench } from './store';
import type { Mark, Result } from './types';

interface SideProps {
  image: string;
  result: Result | undefined;
  marks: Mark[];
  outdated: boolean;
}

// The findings that the keys go through, best first.
export function openFindings(): string[] {
  const { current, results, session, moved, only } = useBench.getState();
  const result = current === null ? undefined : results.get(current);
  if (!result) return [];
  return counting(result, thresholdsOf(session, moved), only).map((own) => result.ids[own.row] ?? '');
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

export function Side({ image, result, marks, outdated }: SideProps): ReactElement {
  const { session, moved, only, finding, mark, run } = useBench();
  const touch = useMediaQuery('(pointer: coarse)', undefined, { getInitialValueInEffect: false });
  const advice = (session?.advice ?? []).filter((line) => line.image === image);
  const least = thresholdsOf(session, moved);
  const colours = new Map(session?.classes.map((own) => [own.name, own.colour]));
  const found = counting(result, least, only);
  const positive = marks.filter((own) => !own.negative).length;
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
            {result?.trouble || (run.key === '' ? 'Nothing is looked for yet: mark a defect.' : nothing(result, least, only, positive))}
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
            None on this image. {touch ? 'Choose the box above' : 'Press B'} and draw a box around a defect, close to its edge.
          </Text>
        )}
      </ScrollArea>
    </aside>
  );
}

function nothing(result: Result | undefined, least: Thresholds, only: string | null, marked: number): string {
  if (!result) return 'This image waits to be searched.';
  const under = below(result, least, only);
  const besides = marked ? ` besides your ${marked === 1 ? 'mark' : 'marks'}` : '';
  if (!under) return besides ? `Nothing${besides}.` : 'Nothing was found here.';
  const slider = least[under.best.label] ?? 1;
  const [score, than] = lower(under.best.score, slider);
  const which = under.count === 1 ? 'The one below it' : `The best of ${under.count} below it`;
  return `Nothing${besides} reaches the slider. ${which} scores ${score}${than === percent(slider) ? '' : `, it stands at ${than}`}.`;
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
