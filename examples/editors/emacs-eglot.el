;;; peft-daemon in Emacs 30 or later, through the built-in eglot  -*- lexical-binding: t -*-

;; Load this file from your init file.  M-x eglot in a Python buffer starts the server, or at once:
;; (add-hook 'python-base-mode-hook #'eglot-ensure)
;; The suggestion is an item of the completion list: C-M-i, or corfu or company while typing.
;; M-x peft-daemon-generate on a comment or a docstring generates code from it, as M-x eglot-code-actions does.
;; Eglot runs one server per buffer: this one replaces the language's own.
;; (setq-default eglot-workspace-configuration '(:peft-daemon (:maxTokens 64)))  ; see docs/editors.md

(defvar peft-daemon-state nil
  "What peft-daemon does: idle, thinking, loading, off or error.")
(add-to-list 'mode-line-misc-info '(peft-daemon-state ("peft-daemon:" peft-daemon-state " ")))

(defun peft-daemon-generate ()
  "Generate code from the comment or docstring at point, or in the region."
  (interactive)
  (let ((region (use-region-p)))
    (eglot-code-actions (if region (region-beginning) (point))
                        (if region (region-end) (point))
                        "refactor.rewrite.generate" t)))

(with-eval-after-load 'eglot
  (defclass peft-daemon-server (eglot-lsp-server) ()
    :documentation "The language server of peft-daemon.")

  (cl-defmethod eglot-execute ((server peft-daemon-server) action)
    "Let SERVER execute ACTION, a command or an action with one, and go on editing meanwhile.
Eglot itself would wait for the answer, and give up after ten seconds."
    (let ((command (if (stringp (plist-get action :command)) action (plist-get action :command))))
      (jsonrpc-async-request
       server :workspace/executeCommand
       (list :command (plist-get command :command) :arguments (plist-get command :arguments))
       :timeout 300
       :success-fn #'ignore
       :error-fn (lambda (err) (message "peft-daemon: %s" (plist-get err :message))))))

  (cl-defmethod eglot-handle-notification
    ((_server peft-daemon-server) (_method (eql peft-daemon/status)) &key state &allow-other-keys)
    "Show the STATE in the mode line."
    (setq peft-daemon-state state)
    (force-mode-line-update t))

  (add-to-list 'eglot-server-programs
               '((python-mode python-ts-mode) . (peft-daemon-server "peft-daemon" "lsp"))))
