// The classes: their sliders, counts and advice.

import { ActionIcon, Badge, Button, Group, Menu, ScrollArea, Slider, Text, TextInput, Tooltip } from '@mantine/core';
import { IconBulb, IconDots, IconLayoutSidebar, IconPlus } from '@tabler/icons-react';
import { useMemo, useState, type ReactElement } from 'react';
import { AdviceLine, check, ChooseThreshold, JobLine, Proof } from './advice';
import { percent, thresholdsOf, totals, type Totals } from './derive';
import { asName, oddIn } from './names';
import { change, moveThreshold, now, openImage, set, useBench } from './store';
import type { Advice, SessionClass } from './types';

// Low scores matter most, so the slider gives them room.
const toSlider = (score: number): number => Math.sqrt(score) * 100;
export const toScore = (value: number): number => Math.max(0.01, Math.round((value / 100) ** 2 * 1000) / 1000);

export function ClassPanel(): ReactElement {
  const { session, results, moved } = useBench();
  const [open, setOpen] = useState(true);
  const least = thresholdsOf(session, moved);
  const counts = useMemo(() => totals(results.values(), thresholdsOf(session, moved)), [results, session, moved]);
  const classes = session?.classes ?? [];
  const checkable = classes.filter((own) => own.images > 1);
  if (!open) {
    return (
      <aside className="classes folded">
        <Tooltip label="Show the classes" position="right">
          <ActionIcon aria-label="Show the classes" onClick={() => setOpen(true)}>
            <IconLayoutSidebar size={18} />
          </ActionIcon>
        </Tooltip>
        {classes.map((own) => (
          <Tooltip key={own.name} label={own.name} position="right">
            <button
              className="dotbutton"
              aria-label={own.name}
              onClick={() => set({ active: own.name })}
              style={{ background: own.colour }}
            />
          </Tooltip>
        ))}
      </aside>
    );
  }
  return (
    <aside className="classes" aria-label="Classes">
      <Group justify="space-between" px="sm" py={8} wrap="nowrap">
        <Text size="xs" fw={700} tt="uppercase" c="dimmed" lts={0.6}>
          Defects
        </Text>
        <Group gap={4} wrap="nowrap">
          {checkable.length > 1 && (
            <Button size="compact-xs" variant="subtle" color="gray" aria-label="Check all marks" onClick={() => check('')}>
              Check all
            </Button>
          )}
          <Tooltip label="Fold" position="right">
            <ActionIcon size="sm" aria-label="Fold the classes" onClick={() => setOpen(false)}>
              <IconLayoutSidebar size={16} />
            </ActionIcon>
          </Tooltip>
        </Group>
      </Group>
      <JobLine label="" />
      <ScrollArea flex={1} type="auto" scrollbarSize={8}>
        {classes.map((own, number) => (
          <ClassRow
            key={own.name}
            own={own}
            number={number + 1}
            threshold={least[own.name] ?? own.threshold}
            count={counts.get(own.name) ?? { findings: 0, images: 0 }}
            advice={(session?.advice ?? []).filter((line) => line.label === own.name)}
          />
        ))}
        {classes.length === 0 && (
          <Text size="sm" c="dimmed" px="sm" pb="sm">
            None yet. Draw a box around one defect on any image and name it; it is then looked for on all images.
          </Text>
        )}
        <AddClass />
      </ScrollArea>
    </aside>
  );
}

interface RowProps {
  own: SessionClass;
  number: number;
  threshold: number;
  count: Totals;
  advice: Advice[];
}

function ClassRow({ own, number, threshold, count, advice }: RowProps): ReactElement {
  const active = useBench((state) => state.active === own.name);
  const only = useBench((state) => state.only === own.name);
  const [renaming, setRenaming] = useState(false);
  const [choosing, setChoosing] = useState(false);
  return (
    <section className="class" data-active={active} data-testid={`class-${own.name}`} onClick={() => set({ active: own.name })}>
      <Group gap={8} wrap="nowrap">
        <span className="dot" style={{ background: own.colour }} />
        {renaming ? (
          <NameField
            begin={own.name}
            about="New name"
            save={(to, told) => change({ kind: 'rename', name: own.name, to }, told)}
            close={() => setRenaming(false)}
          />
        ) : (
          <Text size="sm" fw={600} truncate flex={1} title={own.name}>
            {own.name}
          </Text>
        )}
        {number < 10 && <kbd className="key">{number}</kbd>}
        <Menu position="bottom-end" width={220} shadow="md">
          <Menu.Target>
            <ActionIcon size="sm" aria-label={`Menu of ${own.name}`} onClick={(event) => event.stopPropagation()}>
              <IconDots size={16} />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown onClick={(event) => event.stopPropagation()}>
            <Menu.Item onClick={() => set({ only: only ? null : own.name })}>{only ? 'Show all classes' : 'Show this class only'}</Menu.Item>
            <Menu.Item onClick={() => setRenaming(true)}>Rename</Menu.Item>
            <Menu.Item onClick={() => setChoosing(true)}>Choose the threshold</Menu.Item>
            <Menu.Item onClick={() => void change({ kind: 'threshold', name: own.name, value: null })}>
              Threshold back to {percent(own.default)}
            </Menu.Item>
            <Menu.Item color="red" onClick={() => void change({ kind: 'drop', name: own.name })}>
              Remove with its marks
            </Menu.Item>
          </Menu.Dropdown>
        </Menu>
      </Group>
      <Group gap={6} mt={2} justify="space-between">
        <Tooltip label="Findings at or above the slider, beside the marks">
          <Text size="xs" c="dimmed" className="oneline" data-testid={`count-${own.name}`}>
            <b className="figure">{count.findings}</b> on <b className="figure">{count.images}</b> {count.images === 1 ? 'image' : 'images'}
          </Text>
        </Tooltip>
        <Tooltip label={`${own.marks} marks on ${own.images} images${own.negatives ? `, ${own.negatives} of what it is not` : ''}`}>
          <Badge size="sm" variant="default" className="plain markcount" style={{ cursor: 'pointer' }} onClick={() => nextMarked(own.name)}>
            {own.prompted ? 'from the bank' : `${own.marks} ${own.marks === 1 ? 'mark' : 'marks'}`}
            {own.negatives ? ` · ${own.negatives} not` : ''}
          </Badge>
        </Tooltip>
      </Group>
      <Group gap={10} mt={6} wrap="nowrap">
        <Slider
          flex={1}
          size={4}
          thumbSize={14}
          min={10}
          max={100}
          step={0.5}
          color={own.colour}
          label={null}
          value={toSlider(threshold)}
          onChange={(value) => moveThreshold(own.name, toScore(value))}
          onChangeEnd={(value) => void change({ kind: 'threshold', name: own.name, value: toScore(value) })}
          thumbLabel={`Threshold of ${own.name}`}
        />
        <Text size="xs" ff="monospace" w={38} ta="right" data-testid={`threshold-${own.name}`}>
          {percent(threshold)}
        </Text>
      </Group>
      {own.promise && <Proof own={own} />}
      <JobLine label={own.name} />
      <ChooseThreshold own={own} opened={choosing} close={() => setChoosing(false)} />
      {own.marks === 0 && !own.prompted && (
        <div className="advice">
          <IconBulb size={13} /> <span>not marked yet: open an image and draw a box around one</span>
        </div>
      )}
      {advice.map((line) => (
        <AdviceLine key={`${line.image ?? ''}${line.text}`} line={line} />
      ))}
      {own.images > 1 && (
        <Button size="compact-xs" variant="default" mt={8} onClick={() => check(own.name)}>
          Check the marks
        </Button>
      )}
    </section>
  );
}

// Opens the images with marks of a class in turn.
function nextMarked(label: string): void {
  const { session, current, view } = now();
  const names = [...new Set((session?.marks ?? []).filter((own) => own.label === label).map((own) => own.image))];
  const next = names[(view === 'image' && current !== null ? names.indexOf(current) + 1 : 0) % names.length];
  if (next !== undefined) openImage(next);
}

// A field for a name that stays, with what was typed, until the name is taken or left.
function NameField({ begin, about, save, close }: NameFieldProps): ReactElement {
  const [text, setText] = useState(begin);
  const [refusal, setRefusal] = useState('');
  const odd = oddIn(text);
  const submit = async (): Promise<void> => {
    const name = asName(text);
    if (odd) return;
    if (!name || name === begin || (await save(name, setRefusal))) close();
  };
  return (
    <form
      style={{ flex: 1 }}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <TextInput
        size="xs"
        placeholder="Name, then Enter"
        value={text}
        autoFocus
        error={odd || refusal}
        onChange={(event) => {
          setText(event.currentTarget.value);
          setRefusal('');
        }}
        onKeyDown={(event) => event.key === 'Escape' && close()}
        onBlur={() => odd || refusal || close()}
        aria-label={about}
      />
    </form>
  );
}

interface NameFieldProps {
  begin: string;
  about: string;
  save: (name: string, told: (line: string) => void) => Promise<boolean>;
  close: () => void;
}

function AddClass(): ReactElement {
  const [open, setOpen] = useState(false);
  if (!open) {
    return (
      <Button variant="subtle" color="gray" size="compact-sm" m="xs" leftSection={<IconPlus size={14} />} onClick={() => setOpen(true)}>
        Add a class
      </Button>
    );
  }
  const save = async (name: string, told: (line: string) => void): Promise<boolean> => {
    const done = await change({ kind: 'class', name }, told);
    if (done) set({ active: name });
    return done;
  };
  return (
    <div className="addclass">
      <NameField begin="" about="Name of the class" save={save} close={() => setOpen(false)} />
    </div>
  );
}
