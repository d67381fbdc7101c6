import { createTheme, type MantineColorsTuple } from '@mantine/core';

const teal: MantineColorsTuple = [
  '#e8f7f7', '#d5ecec', '#a9d8d9', '#7ac4c5', '#55b2b5', '#3da8aa', '#2fa3a6', '#1f8e91', '#137f82', '#006e71',
];

export const theme = createTheme({
  primaryColor: 'bench',
  primaryShade: { light: 8, dark: 6 },
  colors: { bench: teal },
  defaultRadius: 'sm',
  fontFamily: 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif',
  fontSizes: { xs: '11.5px', sm: '13px', md: '14px', lg: '16px', xl: '19px' },
  components: {
    Tooltip: { defaultProps: { openDelay: 400, withArrow: true, fz: 'xs' } },
    ActionIcon: { defaultProps: { variant: 'subtle', color: 'gray' } },
    Button: { styles: { label: { fontWeight: 500 } } },
    SegmentedControl: { styles: { label: { fontWeight: 500 } } },
  },
});
