;;; peft-daemon in Emacs 29 or later, through the built-in eglot: M-x eglot in a Python buffer.
;; Completion is in the usual list (C-M-i, or corfu or company while typing); eglot-code-actions on a comment or a
;; docstring offers to generate code from it.  Eglot runs one server per buffer: this one replaces the language's own.

(with-eval-after-load 'eglot
  (add-to-list 'eglot-server-programs
               '((python-mode python-ts-mode) . ("peft-daemon" "lsp"))))
