// Names of classes, and what they may be.

import { Button, Group, Modal, TextInput } from '@mantine/core';
import { useEffect, useState, type ReactElement } from 'react';

const ODD = /[^\p{L}\p{N}_ ./&(),'-]/u; // the server's rule, told while one types
export const ALLOWED = "Letters, digits, spaces and & ( ) , ' . _ - /";

// Composed characters, as the server wants them: a decomposed Ö is no letter.
export const asName = (text: string): string => text.trim().normalize('NFC');

export function oddIn(text: string): string {
  const odd = ODD.exec(asName(text))?.[0];
  return odd === undefined ? '' : `“${odd}” cannot be in a name. ${ALLOWED} can.`;
}

interface NameProps {
  opened: boolean;
  close: () => void;
  named: (name: string, told: (line: string) => void) => Promise<boolean>;
}

// Stays open, with what was typed, until the name is taken.
export function NameDialog({ opened, close, named }: NameProps): ReactElement {
  const [text, setText] = useState('');
  const [refusal, setRefusal] = useState('');
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    setText('');
    setRefusal('');
  }, [opened]);
  const save = async (): Promise<void> => {
    setBusy(true);
    setRefusal('');
    await named(asName(text), setRefusal);
    setBusy(false);
  };
  const odd = oddIn(text);
  return (
    <Modal opened={opened} onClose={close} title="What is this defect called?" size="sm" centered closeOnClickOutside={false}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (asName(text) && !odd && !busy) void save();
        }}
      >
        <TextInput
          value={text}
          onChange={(event) => {
            setText(event.currentTarget.value);
            setRefusal('');
          }}
          placeholder="scratch, dent, stain …"
          description={odd || refusal ? '' : ALLOWED}
          inputWrapperOrder={['input', 'error', 'description']}
          error={odd || refusal}
          data-autofocus
          aria-label="Name of the defect"
        />
        <Group justify="flex-end" mt="md">
          <Button variant="default" onClick={close}>
            Discard
          </Button>
          <Button type="submit" disabled={!asName(text) || odd !== ''} loading={busy}>
            Look for it
          </Button>
        </Group>
      </form>
    </Modal>
  );
}
