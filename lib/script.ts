// The words that scripts are written in, handed on from the rooms of lib/. Whoever writes or adapts a
// script needs these, and the words of the chapter that it belongs to:
//
//   base/       what imports nothing else of this project: failures and their exit codes, what tools
//               say, shell text, processes, locks, files
//   inputs/     flags, descriptors (modules/*.json) and the site file
//   audit/      the record of every run: writing it, and holding it against what is known
//   manual/     the ledgers: what the vendor's pages say, and what is run for each line
//   run/        how a run goes: start and end, headings, commands, questions, variables, the order of words
//   bundle/     what the vendor delivers: archives, images, hints
//   cluster/    the cluster and the state of its workloads
//   registry/   the manual's chapter on charts-syncer: registries and chart repositories
//   nodes/      the manual's chapter on loading images on each node
//   upgrade/    the manual's chapter on upgrading: releases, charts, images, backups, CRDs, workloads
//   bin/        programs of ours that commands call
//
// A room imports only from the rooms above it; registry/ and nodes/ not from each other.

export { command, lines, option } from './base/shell.ts'
export { prepare, run } from './run/command.ts'
export { finish, start } from './run/start.ts'
export { exportVariable, setVariable } from './run/variables.ts'
export { check, ownStep, report, say, step } from './run/words.ts'
