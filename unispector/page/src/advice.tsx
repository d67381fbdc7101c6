// What is worked on beside the search: the doctor's advice on marks, and thresholds that good images prove.

import { ActionIcon, Button, Group, Modal, NumberInput, Progress, Text, Tooltip } from '@mantine/core';
import { IconBulb, IconPlayerStop, IconShieldCheck, IconShieldX } from '@tabler/icons-react';
import { useEffect, useState, type ReactElement } from 'react';
import { address, get, post } from './api';
import { attempt, change, openImage, useBench } from './store';
import type { Advice, Provable, SessionClass } from './types';

export const check = (label: string): void => void attempt(() => post('/bench/check', { label }));

const nameOf = (image: string): string => image.slice(image.lastIndexOf('/') + 1);

// A line of a class; one on an image opens it.
export function AdviceLine({ line }: { line: Advice }): ReactElement {
  const { image, text } = line;
  return (
    <button className="advice" title={image ?? ''} onClick={() => image !== null && openImage(image)}>
      <IconBulb size={13} />
      <span>
        {image !== null && <b>{nameOf(image)}: </b>}
        {text}
      </span>
    </button>
  );
}

// The same beside a mark of the shown image, with a button that does it.
export function MarkAdvice({ line }: { line: Advice }): ReactElement {
  return (
    <div className="markadvice" data-testid="mark-advice">
      <IconBulb size={13} />
      <span>{line.text}</span>
      {line.drop && line.image !== null && (
        <Tooltip label="Remove its marks of this class; Ctrl+Z brings them back">
          <Button
            size="compact-xs"
            variant="default"
            onClick={() => void change({ kind: 'unprompt', image: line.image ?? '', label: line.label })}
          >
            Drop it
          </Button>
        </Tooltip>
      )}
    </div>
  );
}

// How far the work on a class is, or on all of them where the label is empty.
export function JobLine({ label }: { label: string }): ReactElement | null {
  const job = useBench((state) => state.job);
  if (!job.running || job.label !== label) return null;
  const work = job.kind === 'check' ? 'checking the marks' : 'choosing the threshold';
  const far = job.total ? `, ${job.done} of ${job.total} ${job.kind === 'check' ? 'trials' : 'images'}` : '';
  return (
    <div className="job" data-testid="job">
      <Group gap={6} wrap="nowrap">
        <Text size="xs" c="dimmed" flex={1}>
          {work + far}
        </Text>
        <Tooltip label="Stop">
          <ActionIcon size="xs" aria-label="Stop" onClick={() => void attempt(() => post('/bench/stop'))}>
            <IconPlayerStop size={13} />
          </ActionIcon>
        </Tooltip>
      </Group>
      <Progress size={3} value={job.total ? (100 * job.done) / job.total : 100} animated={!job.total} aria-label={work} />
    </div>
  );
}

export function Proof({ own }: { own: SessionClass }): ReactElement {
  const Icon = own.proved ? IconShieldCheck : IconShieldX;
  return (
    <div className="advice promise" data-proved={own.proved} data-testid={`promise-${own.name}`}>
      <Icon size={13} /> <span>{own.promise}</span>
    </div>
  );
}

interface ChooseProps {
  own: SessionClass;
  opened: boolean;
  close: () => void;
}

export function ChooseThreshold({ own, opened, close }: ChooseProps): ReactElement {
  const good = useBench((state) => state.session?.good.length ?? 0);
  const [oneIn, setOneIn] = useState<number | string | null>(null); // null = the best that can be proved
  const [said, setSaid] = useState<Provable | null>(null);
  const [refusal, setRefusal] = useState('');
  useEffect(() => setOneIn(null), [opened]);
  useEffect(() => {
    let wanted = true;
    setSaid(null);
    setRefusal('');
    if (!opened || oneIn === '') return undefined;
    get<Provable>(address('/bench/threshold', { label: own.name, one_in: Number(oneIn) || USUAL })).then(
      (told) => {
        if (!wanted) return;
        if (oneIn === null) setOneIn(told.best || USUAL);
        else setSaid(told);
      },
      (error: unknown) => wanted && setRefusal(lineOf(error)),
    );
    return () => {
      wanted = false;
    };
  }, [opened, own.name, own.marks, own.images, oneIn, good]);
  const choose = async (): Promise<void> => {
    try {
      await post('/bench/threshold', { label: own.name, one_in: Number(oneIn) });
      close();
    } catch (error) {
      setRefusal(lineOf(error));
    }
  };
  const line = refusal || said?.refusal;
  return (
    <Modal opened={opened} onClose={close} title={`Choose the threshold of ${own.name}`} size="md" centered>
      <form
        onClick={(event) => event.stopPropagation()}
        onSubmit={(event) => {
          event.preventDefault();
          if (said?.refusal === '') void choose();
        }}
      >
        <NumberInput
          label="False alarm on at most one good image in"
          value={oneIn ?? ''}
          onChange={setOneIn}
          min={2}
          max={1_000_000}
          allowDecimal={false}
          data-autofocus
        />
        <Text size="sm" mt="xs" fw={600} data-testid="provable">
          {said && said.best > 0 && `${said.good} good images can prove 1 in ${said.best}.`}
        </Text>
        <Text size="sm" mt="sm">
          More good images prove more. Mark them with “Good” (<kbd className="key">G</kbd>), a whole folder with the arrow beside it (
          <kbd className="key">Shift+G</kbd>): images as they come from the line that show no defect, whatever was found on them.
        </Text>
        <Text size="sm" mt="sm">
          On the images with marks of {own.name}, mark every one that is there: what is not marked counts as a wrong finding.
        </Text>
        {line && (
          <Text size="sm" mt="sm" c="red" role="alert">
            {line}
          </Text>
        )}
        <Group justify="flex-end" mt="md">
          <Button variant="default" onClick={close}>
            Cancel
          </Button>
          <Button type="submit" disabled={said?.refusal !== ''}>
            Choose
          </Button>
        </Group>
      </form>
    </Modal>
  );
}

const USUAL = 20; // where nothing can be proved yet

const lineOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
