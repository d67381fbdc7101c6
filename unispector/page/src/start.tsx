// Before a folder is open: choose one, draw demo images, or drop images.

import { Button, Group, Paper, ScrollArea, SimpleGrid, Text, TextInput, Title } from '@mantine/core';
import { IconFolder, IconPhotoPlus, IconSparkles } from '@tabler/icons-react';
import { useEffect, useRef, useState, type ReactElement } from 'react';
import { address, get, post } from './api';
import { Logo } from './header';
import { addFiles, attempt, set } from './store';
import type { FolderEntry, Start } from './types';

export function StartScreen({ start }: { start: Start }): ReactElement {
  const [path, setPath] = useState(start.home);
  const [entries, setEntries] = useState<FolderEntry[]>([]);
  const [busy, setBusy] = useState('');
  const picker = useRef<HTMLInputElement>(null);
  useEffect(() => {
    let wanted = true;
    const timer = setTimeout(() => {
      // While a path is typed most of its beginnings are no folders; that is no error to show.
      get<FolderEntry[]>(address('/bench/folders', { path })).then(
        (found) => wanted && setEntries(found),
        () => wanted && setEntries([]),
      );
    }, 200);
    return () => {
      wanted = false;
      clearTimeout(timer);
    };
  }, [path]);
  const run = async (what: string, work: () => Promise<Start>): Promise<void> => {
    setBusy(what);
    const opened = await attempt(work);
    if (opened) set({ start: opened });
    setBusy('');
  };
  const open = (): Promise<void> => run('open', () => post<Start>('/bench/open', { folder: path }));
  return (
    <div className="start">
      <Group gap="sm" mb={4}>
        <Logo />
        <Title order={2}>UniSpector</Title>
      </Group>
      <Text c="dimmed" mb="xl">
        Draw a box around one defect. See it on every other image.
      </Text>
      <SimpleGrid cols={{ base: 1, sm: 2 }} spacing="lg">
        <Paper withBorder p="md">
          <Group gap={8} mb="xs">
            <IconFolder size={18} />
            <Text fw={600}>A folder of this machine</Text>
          </Group>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              void open();
            }}
          >
            <TextInput value={path} onChange={(event) => setPath(event.currentTarget.value)} aria-label="Folder" mb="xs" />
            <ScrollArea h={190} type="auto" mb="xs" className="folders">
              {entries.map((entry) => (
                <button type="button" key={entry.path} className="entry" onClick={() => setPath(entry.path)}>
                  <IconFolder size={15} /> <span>{entry.name}</span>
                  {entry.images > 0 && <small>{entry.images} images</small>}
                </button>
              ))}
              {entries.length === 0 && (
                <Text size="sm" c="dimmed" p="xs">
                  No folder in there.
                </Text>
              )}
            </ScrollArea>
            <Button type="submit" loading={busy === 'open'} fullWidth>
              Open this folder
            </Button>
          </form>
        </Paper>
        <div className="column">
          <Paper withBorder p="md">
            <Group gap={8} mb="xs">
              <IconSparkles size={18} />
              <Text fw={600}>Demo images</Text>
            </Group>
            <Text size="sm" c="dimmed" mb="sm">
              Drawn parts with bubbles and other defects, to try the page with. It takes some seconds.
            </Text>
            <Button variant="default" loading={busy === 'demo'} onClick={() => void run('demo', () => post<Start>('/bench/demo'))}>
              Draw and open them
            </Button>
          </Paper>
          <Paper withBorder p="md" className="drop">
            <Group gap={8} mb="xs">
              <IconPhotoPlus size={18} />
              <Text fw={600}>Images</Text>
            </Group>
            <Text size="sm" c="dimmed" mb="sm">
              Drop images anywhere on this page. They are copied into a new folder.
            </Text>
            <input
              ref={picker}
              type="file"
              accept="image/*,.tif,.tiff"
              multiple
              hidden
              aria-label="Images"
              onChange={(event) => void addFiles([...(event.currentTarget.files ?? [])])}
            />
            <Button variant="default" onClick={() => picker.current?.click()}>
              Choose images
            </Button>
          </Paper>
        </div>
      </SimpleGrid>
    </div>
  );
}
