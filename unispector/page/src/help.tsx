// How to use the page, and its keys.

import { Modal, SimpleGrid, Table, Text } from '@mantine/core';
import type { ReactElement } from 'react';
import { set, useBench } from './store';

const KEYS: [string, string][] = [
  ['B', 'draw a box'],
  ['M', 'brush a mask'],
  ['E', 'erase from the chosen mask'],
  ['V', 'move, choose, pan'],
  ['N', 'draw what is not the defect'],
  ['1 … 9', 'class to draw'],
  ['[ ]', 'threshold of the class down, up'],
  ['A', 'accept the chosen finding'],
  ['R', 'reject it'],
  ['↑ ↓', 'previous, next finding'],
  ['← →', 'previous, next image'],
  ['D', 'done with the image'],
  ['G', 'the image shows no defect; with Shift all of its folder'],
  ['Delete', 'remove the chosen mark'],
  ['H', 'hide or show masks'],
  ['F', 'whole image'],
  ['+ −', 'zoom; thicker, thinner brush with Shift'],
  ['C', 'compare the picked images'],
  ['Space', 'pick an image of the grid'],
  ['Enter, Esc', 'open an image, back to all; Esc drops what is being drawn'],
  ['Ctrl+Z', 'undo'],
  ['Ctrl+Shift+Z', 'redo'],
  ['?', 'this help'],
];

export function Help(): ReactElement {
  const help = useBench((state) => state.help);
  const half = Math.ceil(KEYS.length / 2);
  return (
    <Modal opened={help} onClose={() => set({ help: false })} title="How it works" size={800} centered>
      <Text size="sm" mb="xs">
        Draw a box around one defect and name it. It is looked for on every image of the folder. Move the slider of the class until it
        shows what you want to see: nothing is searched anew. Accept a finding and it becomes one more mark; reject it and it becomes a mark
        of what the defect is not. Mark two to five images of each defect, as different as it gets.
      </Text>
      <Text size="sm" mb="md">
        Wheel or two fingers zoom, dragging pans (middle button while drawing). Everything is saved after each change.
      </Text>
      <SimpleGrid cols={{ base: 1, xs: 2 }}>
        {[KEYS.slice(0, half), KEYS.slice(half)].map((keys) => (
          <Table key={keys[0]?.[0]} verticalSpacing={3} withRowBorders={false}>
            <Table.Tbody>
              {keys.map(([key, about]) => (
                <Table.Tr key={key}>
                  <Table.Td w={104}>
                    <kbd className="key">{key}</kbd>
                  </Table.Td>
                  <Table.Td>{about}</Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        ))}
      </SimpleGrid>
    </Modal>
  );
}
