" peft-daemon in Vim 8.2 or later, with the plugin ALE (https://github.com/dense-analysis/ale). Put this into your vimrc.
" Suggestions are items of the completion list: <C-x><C-o> asks, <C-n> chooses, <C-y> takes it. For ghost text see
" llama.vim in docs/editors.md.

let g:ale_completion_autoimport = 1 " lets an item replace more than the word before it
set completeopt=menu,menuone,noselect
set omnifunc=ale#completion#OmniFunc

function! PeftDaemonProject(buffer) abort
  let l:git = ale#path#FindNearestDirectory(a:buffer, '.git')
  return empty(l:git) ? expand('#' . a:buffer . ':p:h') : fnamemodify(l:git, ':h:h')
endfunction

let g:ale_linters = get(g:, 'ale_linters', {})
for s:language in ['python', 'javascript', 'typescript', 'c', 'cpp', 'go', 'rust', 'java', 'ruby', 'sh', 'lua']
  call ale#linter#Define(s:language, {
  \   'name': 'peft_daemon',
  \   'lsp': 'stdio',
  \   'executable': 'peft-daemon',
  \   'command': '%e lsp',
  \   'language': s:language,
  \   'project_root': function('PeftDaemonProject'),
  \})
  " The list replaces ALE's choice for the language: add the linters that you want beside it.
  let g:ale_linters[s:language] = get(g:ale_linters, s:language, []) + ['peft_daemon']
endfor
