// The bar over an open image: tools to draw, the image's place in the list, good and done.

import { ActionIcon, Button, Group, Menu, SegmentedControl, Switch, Text, Tooltip } from '@mantine/core';
import { IconArrowLeft, IconArrowRight, IconBrush, IconCheck, IconChevronDown, IconEraser, IconPointer, IconRectangle } from '@tabler/icons-react';
import type { ReactElement } from 'react';
import { change, folderName, openImage, set, toggleGood, useBench, type Tool } from './store';

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

export function Tools({ image, names }: { image: string; names: string[] }): ReactElement {
  const { tool, negative, brush, masks, session } = useBench();
  const at = names.indexOf(image);
  const done = session?.reviewed.includes(image) ?? false;
  return (
    <div className="tools">
      <Group gap={2} wrap="nowrap">
        {TOOLS.map(([name, about, key, Icon]) => (
          <Tooltip key={name} label={`${about} (${key})`} position="bottom">
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
        <Tooltip label="Radius of the brush (Shift + and −)" position="bottom">
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
        <Tooltip label="What is drawn looks like the defect, but is none (N)" position="bottom">
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
      <Switch size="xs" label="Masks" checked={masks} onChange={() => set({ masks: !masks })} />
      <div className="place">
        <Text size="xs" c="dimmed" truncate title={image} data-testid="name">
          {image}
        </Text>
        <Text size="xs" c="dimmed" className="oneline" data-testid="place">
          {at >= 0 && `· ${at + 1} of ${names.length}`}
        </Text>
        <Tooltip label="Previous image (←)" position="bottom">
          <ActionIcon aria-label="Previous image" disabled={at <= 0} onClick={() => step(names, image, -1)}>
            <IconArrowLeft size={18} />
          </ActionIcon>
        </Tooltip>
        <Tooltip label="Next image (→)" position="bottom">
          <ActionIcon aria-label="Next image" disabled={at < 0 || at + 1 >= names.length} onClick={() => step(names, image, 1)}>
            <IconArrowRight size={18} />
          </ActionIcon>
        </Tooltip>
        <GoodButton image={image} good={session?.good.includes(image) ?? false} />
        <Tooltip label="Done with this image (D)" position="bottom">
          <Button
            size="compact-sm"
            variant={done ? 'light' : 'default'}
            leftSection={<IconCheck size={14} />}
            onClick={() => void change({ kind: 'review', image, done: !done })}
          >
            {done ? 'Reviewed' : 'Done'}
          </Button>
        </Tooltip>
      </div>
    </div>
  );
}

function GoodButton({ image, good }: { image: string; good: boolean }): ReactElement {
  const look = { size: 'compact-sm', variant: good ? 'light' : 'default', color: good ? 'green' : 'bench' };
  return (
    <Button.Group>
      <Tooltip label="It shows no defect (G); with Shift all of its folder" position="bottom">
        <Button {...look} aria-pressed={good} onClick={() => void toggleGood(image, false)}>
          Good
        </Button>
      </Tooltip>
      <Menu position="bottom-end" shadow="md">
        <Menu.Target>
          <Button {...look} px={5} aria-label="Good, more">
            <IconChevronDown size={14} />
          </Button>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item onClick={() => void toggleGood(image, true)}>
            {good ? 'No image' : 'All images'} of {folderName(image)} {good ? 'is good' : 'are good'}
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
    </Button.Group>
  );
}
