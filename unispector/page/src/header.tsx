// The bar at the top: folder, progress, connection, and what acts on all.

import { ActionIcon, Badge, Button, Group, Menu, Progress, Text, Tooltip, useComputedColorScheme, useMantineColorScheme } from '@mantine/core';
import {
  IconAlertTriangle,
  IconArrowBackUp,
  IconArrowForwardUp,
  IconColumns2,
  IconDownload,
  IconHelp,
  IconLayoutGrid,
  IconMoon,
  IconPlugConnectedX,
  IconSun,
} from '@tabler/icons-react';
import { useState, type ReactElement } from 'react';
import { get, post } from './api';
import { attempt, set, tell, useBench } from './store';
import { undo } from './undone';
import type { ExportState, Run } from './types';

const KINDS: [string, string, string][] = [
  ['coco', 'COCO JSON', 'boxes, masks, scores'],
  ['csv', 'CSV', 'one line a finding'],
  ['yolo', 'YOLO', 'labels, zip'],
  ['labelme', 'LabelMe', 'masks and boxes, zip'],
  ['images', 'Annotated images', 'zip'],
  ['bank', 'Prompt bank', 'for detect, serve and inspect'],
];

export function Header(): ReactElement {
  const { session, run, online, view, chosen } = useBench();
  const folder = session?.folder.split('/').filter(Boolean).at(-1) ?? '';
  return (
    <header className="bar">
      <Logo />
      <Tooltip label={session ? `${session.folder} · session in ${session.session}` : ''}>
        <Text size="sm" fw={600} truncate className="folder">
          {folder}
        </Text>
      </Tooltip>
      <Status run={run} />
      {!online && (
        <Badge color="red" variant="light" leftSection={<IconPlugConnectedX size={13} />} data-testid="offline" className="plain">
          Connection lost, trying again. Nothing is lost that was saved.
        </Badge>
      )}
      <Group gap={4} ml="auto" wrap="nowrap">
        <Tooltip label="Undo (Ctrl+Z)">
          <ActionIcon aria-label="Undo" disabled={session?.undo !== true} onClick={() => void undo()}>
            <IconArrowBackUp size={18} />
          </ActionIcon>
        </Tooltip>
        <Tooltip label="Redo (Ctrl+Shift+Z)">
          <ActionIcon aria-label="Redo" disabled={session?.redo !== true} onClick={() => void undo(true)}>
            <IconArrowForwardUp size={18} />
          </ActionIcon>
        </Tooltip>
        {view === 'grid' ? (
          <Tooltip label="Pick two to four images in the grid, then compare them (C)">
            <Button
              size="compact-sm"
              variant="default"
              leftSection={<IconColumns2 size={15} />}
              disabled={chosen.length < 2}
              onClick={() => set({ view: 'compare' })}
            >
              {chosen.length ? `Compare ${chosen.length}` : 'Compare'}
            </Button>
          </Tooltip>
        ) : (
          <Button size="compact-sm" variant="default" leftSection={<IconLayoutGrid size={15} />} onClick={() => set({ view: 'grid' })}>
            All images
          </Button>
        )}
        <ExportMenu />
        <Scheme />
        <Tooltip label="Help and keys (?)">
          <ActionIcon aria-label="Help" onClick={() => set({ help: true })}>
            <IconHelp size={18} />
          </ActionIcon>
        </Tooltip>
      </Group>
    </header>
  );
}

export function Logo(): ReactElement {
  return (
    <svg width="26" height="26" viewBox="0 0 32 32" aria-label="UniSpector" className="logo">
      <rect width="32" height="32" rx="7" fill="#137f82" />
      <path
        d="M7 12V8a1 1 0 0 1 1-1h4M20 7h4a1 1 0 0 1 1 1v4M25 20v4a1 1 0 0 1-1 1h-4M12 25H8a1 1 0 0 1-1-1v-4"
        fill="none"
        stroke="white"
        strokeWidth="2.4"
        strokeLinecap="round"
      />
      <circle cx="16" cy="16" r="4" fill="#ffb000" />
    </svg>
  );
}

function Status({ run }: { run: Run }): ReactElement | null {
  if (run.state === 'error') {
    return (
      <Tooltip label={run.line} multiline maw={420}>
        <Text size="xs" c="red" truncate className="status" data-testid="status">
          <IconAlertTriangle size={13} /> {run.line}
        </Text>
      </Tooltip>
    );
  }
  const words = {
    idle: `${run.total} images`,
    loading: run.line,
    encoding: 'reading the marks',
    detecting: `searching, ${run.done} of ${run.total} images${run.line ? `, ${run.line}` : ''}`,
    done: `${run.total} images searched`,
  }[run.state];
  return (
    <div className="status" data-testid="status" data-state={run.state}>
      <Text size="xs" c="dimmed" truncate>
        {words}
      </Text>
      {(run.state === 'detecting' || run.state === 'encoding') && (
        <Progress value={run.total ? (100 * run.done) / run.total : 0} size={3} w={150} aria-label="Progress" animated={run.state === 'encoding'} />
      )}
    </div>
  );
}

function Scheme(): ReactElement {
  const { setColorScheme } = useMantineColorScheme();
  const dark = useComputedColorScheme('light') === 'dark';
  return (
    <Tooltip label={dark ? 'Light' : 'Dark'}>
      <ActionIcon aria-label={dark ? 'Light colours' : 'Dark colours'} onClick={() => setColorScheme(dark ? 'light' : 'dark')}>
        {dark ? <IconSun size={18} /> : <IconMoon size={18} />}
      </ActionIcon>
    </Tooltip>
  );
}

function ExportMenu(): ReactElement {
  const start = useBench((state) => state.start);
  const empty = useBench((state) => state.images.length === 0);
  const [busy, setBusy] = useState<ExportState | null>(null);
  const run = async (kind: string): Promise<void> => {
    let state = await post<ExportState>('/bench/export', { kind });
    while (!state.ready && !state.trouble) {
      setBusy(state);
      await new Promise((resolve) => setTimeout(resolve, 250));
      state = await get<ExportState>('/bench/export');
    }
    if (state.trouble) throw new Error(state.trouble);
    const link = document.createElement('a');
    link.href = `/bench/export/file?number=${state.number}`;
    link.download = '';
    link.click();
    tell(`Export written: ${state.file}`);
  };
  const begin = async (kind: string): Promise<void> => {
    await attempt(() => run(kind));
    setBusy(null);
  };
  return (
    <Menu position="bottom-end" width={340} shadow="md">
      <Menu.Target>
        <Button size="compact-sm" variant="default" leftSection={<IconDownload size={15} />} loading={busy !== null} disabled={empty}>
          Export
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>Marks, and findings at or above the sliders</Menu.Label>
        {KINDS.filter(([kind]) => start?.exports.includes(kind)).map(([kind, name, about]) => (
          <Menu.Item key={kind} onClick={() => void begin(kind)}>
            <Group justify="space-between" wrap="nowrap" gap="xs">
              <Text size="sm" className="oneline">
                {name}
              </Text>
              <Text size="xs" c="dimmed" className="oneline">
                {about}
              </Text>
            </Group>
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}
