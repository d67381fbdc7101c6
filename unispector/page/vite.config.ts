import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import react from '@vitejs/plugin-react';
import license from 'rollup-plugin-license';
import { defineConfig, type Plugin } from 'vite';

const here = import.meta.dirname;
const BUILD_FILES = ['index.html', 'package-lock.json', 'package.json', 'tsconfig.json', 'vite.config.ts'];

// tests/serving/test_page_build.py computes the same, so that a stale build shows.
function sourcesHash(): string {
  const sources = readdirSync(join(here, 'src'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(here.length + 1));
  const hash = createHash('sha256');
  for (const name of [...BUILD_FILES, ...sources].sort()) {
    hash.update(`${name}\0${createHash('sha256').update(readFileSync(join(here, name))).digest('hex')}\n`);
  }
  return hash.digest('hex');
}

const stamp: Plugin = {
  name: 'stamp',
  closeBundle() {
    writeFileSync(join(here, 'dist', 'sources.sha256'), `${sourcesHash()}\n`);
  },
};

export default defineConfig({
  base: '/',
  plugins: [
    react(),
    license({
      thirdParty: {
        output: {
          file: join(here, 'dist', 'licences.txt'),
          template: (packages) =>
            packages
              .map((each) => `${each.name ?? ''} ${each.version ?? ''} (${each.license ?? 'no licence named'})\n\n${each.licenseText ?? ''}`)
              .join('\n\n----------------------------------------\n\n') + '\n',
        },
      },
    }) as Plugin,
    stamp,
  ],
  build: { outDir: 'dist', emptyOutDir: true, assetsInlineLimit: 0, chunkSizeWarningLimit: 2000, sourcemap: false },
});
