// What is shown when: the token, the start, or the bench.

import { Button, Group, Modal, PasswordInput, Text } from '@mantine/core';
import { useEffect, useState, type ReactElement } from 'react';
import { logIn } from './api';
import { ClassPanel } from './classes';
import { Compare } from './compare';
import { Grid } from './grid';
import { Header } from './header';
import { Help } from './help';
import { ImageView } from './image';
import { useKeys } from './keys';
import { StartScreen } from './start';
import { addFiles, attempt, set, useBench } from './store';
import { begin, follow } from './sync';

let following = false;

export function App(): ReactElement {
  const { start, locked, view } = useBench();
  useKeys();
  useEffect(() => {
    if (!following) {
      following = true;
      void follow();
    }
  }, []);
  return (
    <div
      className="page"
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        if (start) void addFiles([...event.dataTransfer.files]);
      }}
    >
      {start?.opened === true ? (
        <>
          <Header />
          <div className="body">
            <ClassPanel />
            <main className="stage">
              {/* The grid stays, so that it is where it was on the way back. */}
              <div className="fill" style={{ display: view === 'grid' ? 'flex' : 'none' }}>
                <Grid />
              </div>
              {view === 'image' && <ImageView />}
              {view === 'compare' && <Compare />}
            </main>
          </div>
        </>
      ) : (
        start !== null && <StartScreen start={start} />
      )}
      <Help />
      <TokenDialog opened={locked} />
    </div>
  );
}

function TokenDialog({ opened }: { opened: boolean }): ReactElement {
  const [token, setToken] = useState('');
  const enter = async (): Promise<void> => {
    const done = await attempt(async () => {
      await logIn(token.trim());
      await begin();
      return true;
    });
    set({ locked: done !== true });
  };
  return (
    <Modal opened={opened} onClose={() => undefined} withCloseButton={false} title="Token" centered>
      <Text size="sm" mb="sm" c="dimmed">
        This page can be reached by others, so it asks for the token that UniSpector was started with (UNISPECTOR_TOKEN).
      </Text>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void enter();
        }}
      >
        <PasswordInput value={token} onChange={(event) => setToken(event.currentTarget.value)} data-autofocus aria-label="Token" />
        <Group justify="flex-end" mt="md">
          <Button type="submit" disabled={!token.trim()}>
            Open
          </Button>
        </Group>
      </form>
    </Modal>
  );
}
